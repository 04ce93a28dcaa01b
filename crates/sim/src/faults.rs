//! Which faults a world has and how likely: each seed draws its own mixture, so that rare combinations meet.

use crate::rng::Rng;

/// Chances in a thousand, or 0 for a fault that this seed does not have.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Faults {
    /// A doorbell never comes.
    pub bell_lost: u32,
    /// A doorbell comes again.
    pub bell_repeated: u32,
    /// A doorbell comes hours later.
    pub bell_late: u32,
    /// An effect fails before it has done anything.
    pub effect_refused: u32,
    /// An effect is done, and an error is returned.
    pub effect_done_but_error: u32,
    /// A read takes minutes to come back.
    pub read_slow: u32,
    /// A read returns what was read some time ago, and says so.
    pub read_cached: u32,
    /// The record of a change cannot be read, and the next time it can.
    pub record_damaged: u32,
    /// The forge says that it moved a branch and did not.
    pub forge_lies: u32,
    /// Somebody pushes to the branch just before our landing arrives.
    pub pushed_before_landing: u32,
    /// A landing is carried out minutes later.
    pub landing_slow: u32,
    /// A job fails although its content passes.
    pub job_flaky: u32,
    /// A job ends by a fault of the machine.
    pub job_errored: u32,
    /// A result comes a second time.
    pub result_repeated: u32,
    /// An answer or event is put into an inbox twice.
    pub intake_repeated: u32,
    /// The store takes half a minute for a write set.
    pub commit_slow: u32,
    /// A write set is lost, and the server knows.
    pub commit_lost: u32,
    /// A write set is durable, and the server thinks that it is not.
    pub commit_unknown: u32,
    /// A request of a server that crashed arrives nevertheless.
    pub request_outlives_server: u32,
    /// How often one of [`Strike`] happens, at each opportunity.
    pub strike: u32,
}

/// Faults that happen to a whole process or machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strike {
    /// The server dies now.
    Crash,
    /// The server dies at one of its next steps: between a decision and its record, an effect and its answer.
    CrashSoon,
    /// A second server starts while the first one still runs.
    Twin,
    /// The executor dies with its jobs, one of which comes back as a ghost.
    ExecutorDies,
    /// The wall clock jumps.
    ClockJumps,
    /// The executors take more or fewer jobs.
    CapacityChanges,
    /// The disk does not confirm a write; the gates hear of it late.
    DiskFails,
    /// The server is started again on data that nobody has accepted yet.
    Restored,
    /// The machine loses power, and git what it had not synced.
    PowerCut,
}

/// All strikes.
pub const STRIKES: [Strike; 9] = [
    Strike::Crash,
    Strike::CrashSoon,
    Strike::Twin,
    Strike::ExecutorDies,
    Strike::ClockJumps,
    Strike::CapacityChanges,
    Strike::DiskFails,
    Strike::Restored,
    Strike::PowerCut,
];

impl Faults {
    /// The mixture of one seed.
    pub fn swarm(rng: &mut Rng) -> Faults {
        let mut draw = |most: u64| if rng.chance(500) { 1 + rng.below(most) as u32 } else { 0 };
        Faults {
            bell_lost: draw(1000),
            bell_repeated: draw(300),
            bell_late: draw(200),
            effect_refused: draw(150),
            effect_done_but_error: draw(150),
            read_slow: draw(150),
            read_cached: draw(100),
            record_damaged: draw(60),
            forge_lies: draw(20),
            pushed_before_landing: draw(60),
            landing_slow: draw(100),
            job_flaky: draw(100),
            job_errored: draw(100),
            result_repeated: draw(100),
            intake_repeated: draw(60),
            commit_slow: draw(30),
            commit_lost: draw(20),
            commit_unknown: draw(20),
            request_outlives_server: draw(700),
            strike: 100 + draw(400),
        }
    }
}
