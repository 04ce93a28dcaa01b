//! Faults of whole processes and machines.

use towpath_core::cell::CellId;
use towpath_core::gate::HaltCause;
use towpath_core::graph::Outcome;
use towpath_core::run::RunEvent;
use towpath_core::turn::Intake;

use super::{Ev, World};
use crate::fake::executor::{self, result};
use crate::fake::store::AnyIntake;
use crate::faults::{STRIKES, Strike};
use crate::mutant::Mutant;

/// Steps of a server within which a planned crash happens.
const CRASH_STEPS_MAX: u64 = 40;
/// Milliseconds for which a replaced server does not know it.
const TWIN_MS_MAX: i64 = 600_000;
/// Milliseconds after which a ghost of an executor speaks.
const GHOST_MS_MAX: i64 = 1_800_000;
/// Milliseconds by which the wall clock jumps: a day either way, sometimes ten years.
const JUMP_MS: i64 = 86_400_000;
const LEAP_MS: i64 = 3_650 * 86_400_000;
/// Milliseconds until the gates hear of a halt.
const LATE_WORD_MS_MAX: i64 = 600_000;
/// Milliseconds until somebody looks at what halts landing.
const LOOK_MS_MAX: i64 = 3_600_000;
/// Slots of the executors.
const SLOTS: (i64, i64) = (1, 6);

impl World {
    /// Perhaps something strikes.
    pub fn maybe_strike(&mut self) {
        if self.rng.chance(self.faults.strike) {
            let strike = self.rng.pick(&STRIKES).expect("invariant: there are some");
            self.fired += 1;
            self.trace.line(format!("{} strike: {strike:?}", self.now));
            self.strike(strike);
        }
    }

    /// Something strikes.
    pub fn strike(&mut self, strike: Strike) {
        match strike {
            Strike::Crash => self.crash(),
            Strike::CrashSoon => self.crash_at = Some(self.points + 1 + self.rng.below(CRASH_STEPS_MAX)),
            Strike::Twin => self.twin(),
            Strike::ExecutorDies => self.executor_dies(),
            Strike::ClockJumps => {
                let most = if self.rng.chance(100) { LEAP_MS } else { JUMP_MS };
                self.wall_offset = self.rng.between(-most, most);
            }
            Strike::CapacityChanges => {
                let slots = self.rng.between(SLOTS.0, SLOTS.1) as u64;
                self.set_capacity(slots);
            }
            Strike::DiskFails => self.disk_fails(),
            Strike::Restored => {
                // Data are put back where no server runs, also none that was replaced and does not know it.
                while self.leader().is_some() {
                    self.crash();
                }
                self.restores += 1;
                let why = format!("leaves are lost by restore {}", self.restores);
                self.store.halts.insert(HaltCause::Restore, why);
                self.checks.note_restored(&self.store);
                let delay = self.rng.between(1, LOOK_MS_MAX);
                self.at(delay, Ev::Accept);
            }
            Strike::PowerCut => {
                self.crash();
                self.forge.lose_candidates();
            }
        }
    }

    fn disk_fails(&mut self) {
        if self.leader().is_none() {
            return;
        }
        self.store.halts.insert(HaltCause::Disk, "the disk did not confirm a write".into());
        let delay = self.rng.between(1, LATE_WORD_MS_MAX);
        self.at(delay, Ev::TellHalts);
        let delay = self.rng.between(1, LOOK_MS_MAX);
        self.at(delay, Ev::Restart);
    }

    /// A person looks at the disk and starts the server again.
    pub(super) fn restart_after_a_look(&mut self) {
        if self.store.halts.contains_key(&HaltCause::Disk) {
            self.crash();
        }
    }

    /// A person accepts what a restore lost.
    pub(super) fn accept_restore(&mut self) {
        // Whom a server tells that it has accepted, it has told of the restore when it started.
        if self.leader().is_none() {
            let delay = self.rng.between(1, LOOK_MS_MAX);
            self.at(delay, Ev::Accept);
            return;
        }
        if self.store.halts.remove(&HaltCause::Restore).is_some() {
            self.tell_halts();
            self.tell_accepted();
        }
    }

    /// A second server takes the store; the first one goes on until it notices.
    fn twin(&mut self) {
        let Some(old) = self.leader().map(|server| server.epoch) else { return };
        self.start_server();
        let delay = self.rng.between(1, TWIN_MS_MAX);
        self.at(delay, Ev::Stop(old));
    }

    /// Where leases are not fenced, what a ghost says counts for the attempt that took its place.
    pub(super) fn perhaps_under_the_current_lease(&self, mut intake: AnyIntake) -> AnyIntake {
        if self.mutant == Some(Mutant::LeasesAreNotFenced)
            && let AnyIntake::Run(Intake::Event(RunEvent::JobEnded { lease, .. })) = &mut intake
        {
            let old = &self.executor.jobs[&lease.id];
            let same = |job: &&executor::Job| job.run == old.run && job.lease.job == old.lease.job;
            let newest = self.executor.jobs.values().filter(same).max_by_key(|job| job.lease.attempt);
            *lease = newest.map_or(lease.clone(), |job| job.lease.clone());
        }
        intake
    }

    fn executor_dies(&mut self) {
        let running = self.executor.running();
        for lease in &running {
            let job = self.executor.jobs[lease].clone();
            if self.rng.chance(500) {
                // It was only cut off, and says later what it had found: under a lease that was given up.
                let late = result(&job.lease, job.reported);
                self.late_result(&CellId::Run(job.run.clone()), job.lease.clone(), late, GHOST_MS_MAX);
            }
            self.job_ends(lease, Some(Outcome::Errored));
        }
        debug_assert!(self.executor.jobs.values().all(|job| job.stage != executor::Stage::Running));
    }
}
