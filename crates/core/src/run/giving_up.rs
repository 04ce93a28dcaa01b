//! A run whose results are more than can be written: it ends with that as its reason, instead of never.

use super::*;

/// Bytes of what a run tells its gate. Source: the store takes 64 MiB at once, and the gate's own row has more in it.
const REPORT_BYTES_MAX: usize = 32 << 20;
/// Bytes that a job has in a report beside its texts, roughly: digests, numbers, names of fields.
const JOB_BYTES: usize = 512;
/// Bytes that an output has in a report beside its name.
const OUTPUT_BYTES: usize = 72;

impl RunState {
    /// Ends what is open, and lets every result say why instead of what it was: results that cannot be told count for
    /// nothing.
    pub(super) fn give_up(&mut self, why: &str, now: Timestamp) {
        if self.whole.ended.is_some() || self.whole.given_up.is_some() {
            return;
        }
        let why = cut_why(why);
        self.whole.edit().given_up = Some(why.clone());
        let over: Vec<u32> =
            self.jobs.map().iter().filter(|(_, state)| is_done(state)).map(|(job, _)| *job).collect();
        for job in over {
            let Some(JobState::Done { result, .. }) = self.jobs.get(&job) else { continue };
            let short = self.kept(result.clone());
            if let Some(JobState::Done { result, .. }) = self.jobs.get_mut(&job) {
                *result = short.clone();
            }
            self.note_lost(JobIndex(job), &short);
        }
        self.stop_all(&why, now);
    }

    /// A result as it is kept.
    pub(super) fn kept(&self, result: Arc<JobResult>) -> Arc<JobResult> {
        let Some(why) = &self.whole.given_up else { return result };
        // Whoever took it over as passed would take over no outputs.
        let outcome = if result.outcome == Outcome::Passed { Outcome::Failed } else { result.outcome };
        Arc::new(JobResult {
            exit_code: result.exit_code,
            log: result.log,
            duration_ms: result.duration_ms,
            unsandboxed: result.unsandboxed,
            skip: result.skip.clone(),
            ..JobResult::unrun(outcome, why.as_str())
        })
    }

    /// Why the gate cannot be told what the jobs left, if so.
    pub(super) fn untellable(&self) -> Option<String> {
        let bytes: usize = self
            .jobs
            .map()
            .iter()
            .filter_map(|(job, state)| match state {
                JobState::Done { result, .. } => {
                    Some(self.graph.job(JobIndex(*job)).name.as_str().len() + told_bytes(result))
                }
                _ => None,
            })
            .sum();
        (bytes > REPORT_BYTES_MAX).then(|| {
            format!(
                "the results of this run take {bytes} bytes, at most {REPORT_BYTES_MAX}; let its jobs have fewer outputs"
            )
        })
    }
}

/// What a result takes in a report, at most: a text may be escaped.
fn told_bytes(result: &JobResult) -> usize {
    let outputs: usize = result.outputs.keys().map(|name| 2 * name.len() + OUTPUT_BYTES).sum();
    JOB_BYTES + 2 * result.why.len().min(WHY_BYTES_MAX) + outputs
}

fn is_done(state: &JobState) -> bool {
    matches!(state, JobState::Done { .. })
}
