//! How a run moves: jobs become ready, take slots, end, are tried again, drag others with them.

use super::*;

impl RunState {
    pub(super) fn begin(&mut self, start: &Arc<RunStart>, now: Timestamp) {
        if self.start.is_some() {
            return;
        }
        *self.start.edit() = Some(start.clone());
        self.whole.edit().started_at = now;
        self.graph = start.graph.clone();
        self.notes.acts.push(Act::RunStarted {
            run: self.id.clone(),
            trigger: start.trigger,
            change: start.change,
            commit: start.commit,
            reason: start.reason.clone(),
        });
        self.derive();
        let free: Vec<JobIndex> =
            self.graph.iter().filter(|(_, spec)| spec.needs.is_empty()).map(|(job, _)| job).collect();
        for (job, carried) in &start.carried {
            self.finish(*job, carried.result.clone(), Some(carried.run.clone()), now);
        }
        let skipped: Vec<JobIndex> =
            self.graph.iter().filter(|(_, spec)| spec.skip.is_some()).map(|(job, _)| job).collect();
        for job in skipped.into_iter().filter(|job| !start.carried.contains_key(job)) {
            self.skip(job, SkipReason::When, now);
        }
        if start.restored {
            self.deploy_nothing_again(now);
        }
        free.into_iter().for_each(|job| self.make_ready(job));
        if let Some(why) = self.whole.cancelled.clone().or_else(|| self.whole.given_up.clone()) {
            self.stop_all(&why, now);
        }
    }

    /// Everything about the jobs that follows from their rows and the graph.
    pub(super) fn derive(&mut self) {
        let count = self.graph.jobs.len();
        self.dependants = vec![Vec::new(); count];
        self.needs_left = vec![0; count];
        self.ready.clear();
        self.running.clear();
        self.open = count;
        self.lost = None;
        for (job, spec) in self.graph.iter() {
            for need in &spec.needs {
                self.dependants[need.0 as usize].push(job);
                self.needs_left[job.0 as usize] += u32::from(!is_done(self.jobs.get(&need.0)));
            }
            match self.jobs.get(&job.0) {
                Some(JobState::Done { result, .. }) => {
                    self.open -= 1;
                    if spec.required && !counts(result) {
                        self.lost.get_or_insert_with(|| spec.name.clone());
                    }
                }
                Some(JobState::Running { .. }) => {
                    self.running.insert(job);
                }
                _ if self.needs_left[job.0 as usize] == 0 && self.may_deploy(job) => {
                    self.ready.insert(job);
                }
                _ => {}
            }
        }
    }

    /// Starts as many ready jobs as there are new slots. A slot that finds no job, and that of a job that ends, counts
    /// as given back at once: what is held is exactly what runs.
    pub(super) fn granted(&mut self, total: u64, now: Timestamp) {
        let new = total.saturating_sub(self.whole.granted);
        if new > 0 {
            self.whole.edit().granted = total;
        }
        for _ in 0..new {
            let Some(job) = self.ready.pop_first() else { return };
            self.start_job(job, now);
        }
    }

    /// A job whose needs are done waits for a slot, or first for its turn in the environment that it deploys to.
    fn make_ready(&mut self, job: JobIndex) {
        if is_done(self.jobs.get(&job.0)) || self.running.contains(&job) {
            return;
        }
        match self.may_deploy(job) {
            true => drop(self.ready.insert(job)),
            false => self.claim(job),
        }
    }

    /// A job has its turn to deploy. One that has ended meanwhile has given it back already.
    pub(super) fn admitted(&mut self, admission: &Admission) {
        let job = admission.job;
        if self.turns.get(&job.0) != Some(&Turn::Claimed) || is_done(self.jobs.get(&job.0)) {
            return;
        }
        let (number, before) = (admission.number, admission.before);
        self.turns.insert(job.0, Turn::Admitted { number, before });
        self.await_slot(job);
    }

    pub(super) fn cancel(&mut self, why: &str, now: Timestamp) {
        if self.whole.ended.is_some() || self.whole.cancelled.is_some() {
            return;
        }
        let why = cut_why(why);
        // Remembered also before the start, should the two messages come the wrong way round.
        self.whole.edit().cancelled = Some(why.clone());
        self.stop_all(&why, now);
    }

    /// Stops what runs, drops what waits.
    pub(super) fn stop_all(&mut self, why: &str, now: Timestamp) {
        let open: Vec<JobIndex> =
            self.graph.iter().map(|(job, _)| job).filter(|job| !is_done(self.jobs.get(&job.0))).collect();
        open.into_iter().for_each(|job| self.stop(job, why, now));
    }

    fn stop(&mut self, job: JobIndex, why: &str, now: Timestamp) {
        if self.fresh.remove(&job) {
            self.running.remove(&job);
        }
        if self.running.contains(&job) {
            if let Some(JobState::Running { stopping: stopping @ None, .. }) = self.jobs.get_mut(&job.0) {
                *stopping = Some(why.to_owned());
            }
        } else if !is_done(self.jobs.get(&job.0)) {
            self.finish(job, Arc::new(JobResult::unrun(Outcome::Cancelled, why)), None, now);
        }
    }

    pub(super) fn job_ended(&mut self, lease: &Lease, result: &JobResult, now: Timestamp) {
        if self.lease(lease.job).is_none_or(|held| held != lease) {
            return;
        }
        let running = self.jobs.get(&lease.job.0).cloned();
        let Some(JobState::Running { stopping, restored, tries, .. }) = running else { return };
        self.running.remove(&lease.job);
        self.fresh.remove(&lease.job);
        let result = Arc::new(JobResult { why: cut_why(result.why.as_str()), ..result.clone() });
        match stopping {
            Some(why) if result.outcome != Outcome::Passed => {
                let result = JobResult { outcome: Outcome::Cancelled, why, ..(*result).clone() };
                self.finish(lease.job, Arc::new(result), None, now);
            }
            None if restored && self.graph.job(lease.job).body.restartable
                || self.may_try_again(lease.job, &tries, result.outcome) =>
            {
                let tries = tries.into_iter().chain([result]).collect();
                self.jobs.insert(lease.job.0, JobState::Again { tries });
                self.await_slot(lease.job);
            }
            _ => self.finish(lease.job, result, None, now),
        }
    }

    fn may_try_again(&self, job: JobIndex, tries: &[Arc<JobResult>], outcome: Outcome) -> bool {
        let body = &self.graph.job(job).body;
        let counted =
            |wanted: &[Outcome]| tries.iter().filter(|result| wanted.contains(&result.outcome)).count();
        match outcome {
            // A deployment may have half happened: only its author knows whether a second try is safe.
            Outcome::Errored if body.environment.is_some() && !body.restartable => false,
            Outcome::Errored => counted(&[Outcome::Errored]) < usize::from(body.retry_errored),
            Outcome::Failed | Outcome::TimedOut => {
                counted(&[Outcome::Failed, Outcome::TimedOut]) < usize::from(body.retry_failed)
            }
            Outcome::Passed | Outcome::Cancelled | Outcome::Skipped => false,
        }
    }

    fn skip(&mut self, job: JobIndex, reason: SkipReason, now: Timestamp) {
        self.finish(job, skipped(reason), None, now);
    }

    /// Ends a job and whatever its end drags along. A list, not recursion: a chain may be 10,000 jobs long.
    pub(super) fn finish(
        &mut self,
        job: JobIndex,
        result: Arc<JobResult>,
        carried: Option<RunId>,
        now: Timestamp,
    ) {
        let mut ending = vec![(job, result, carried)];
        while let Some((job, result, carried)) = ending.pop() {
            if is_done(self.jobs.get(&job.0)) || self.running.contains(&job) {
                continue;
            }
            let result = self.kept(result);
            let tries = self.jobs.get(&job.0).map(|state| state.tries().to_vec()).unwrap_or_default();
            self.jobs.insert(job.0, JobState::Done { result: result.clone(), tries, carried, at: now });
            self.ready.remove(&job);
            self.open -= 1;
            self.note_lost(job, &result);
            self.release_dependants(job, &result, &mut ending);
            self.abort_others(job, &result, &mut ending);
        }
    }

    fn release_dependants(&mut self, job: JobIndex, result: &JobResult, ending: &mut Vec<Ending>) {
        let name = &self.graph.job(job).name;
        let mut free = Vec::new();
        for &dependant in &self.dependants[job.0 as usize] {
            let left = &mut self.needs_left[dependant.0 as usize];
            *left -= 1;
            match dragged(result, name) {
                Some(reason) => ending.push((dependant, skipped(reason), None)),
                None if *left == 0 && !is_done(self.jobs.get(&dependant.0)) => free.push(dependant),
                None => {}
            }
        }
        free.into_iter().for_each(|dependant| self.make_ready(dependant));
    }

    fn abort_others(&mut self, job: JobIndex, result: &JobResult, ending: &mut Vec<Ending>) {
        if !matches!(result.outcome, Outcome::Failed | Outcome::Errored | Outcome::TimedOut) {
            return;
        }
        let spec = self.graph.job(job);
        let why = format!("`{}` did not pass and aborts it", spec.name);
        for other in &spec.aborts {
            if self.fresh.remove(other) {
                self.running.remove(other);
                ending.push((*other, Arc::new(JobResult::unrun(Outcome::Cancelled, why.clone())), None));
                continue;
            }
            match self.jobs.get_mut(&other.0) {
                Some(JobState::Running { stopping: stopping @ None, .. }) => *stopping = Some(why.clone()),
                _ => ending.push((*other, Arc::new(JobResult::unrun(Outcome::Cancelled, why.clone())), None)),
            }
        }
    }

    /// Remembers the first required job that is over without counting for the bar.
    pub(super) fn note_lost(&mut self, job: JobIndex, result: &JobResult) {
        let spec = self.graph.job(job);
        if self.lost.is_none() && spec.required && !counts(result) {
            self.lost = Some(spec.name.clone());
        }
    }

    /// After each fact: no longer possible runs stop, slots are used, the end is noticed.
    pub(super) fn advance(&mut self, now: Timestamp) {
        let Some(start) = self.start.as_ref().cloned() else { return };
        if self.whole.ended.is_some() {
            return;
        }
        if let Some(name) = self.lost.clone().filter(|_| start.fail_fast && self.open > 0) {
            self.stop_all(&format!("required job `{name}` did not pass, so this run cannot"), now);
        }
        if self.open == 0 {
            if let Some(why) = self.untellable() {
                self.give_up(&why, now);
            }
            self.end(&start, now);
        }
    }

    fn start_job(&mut self, job: JobIndex, now: Timestamp) {
        let tries = self.jobs.get(&job.0).map(|state| state.tries().to_vec()).unwrap_or_default();
        let lease = lease(&self.id, job, tries.len() as u32 + 1);
        self.jobs
            .insert(job.0, JobState::Running { lease, since: now, stopping: None, restored: false, tries });
        self.running.insert(job);
        self.fresh.insert(job);
    }

    fn end(&mut self, start: &RunStart, now: Timestamp) {
        let outcome = match (&self.whole.cancelled, &self.whole.given_up) {
            (Some(_), _) => Outcome::Cancelled,
            (None, Some(_)) => Outcome::Failed,
            (None, None) => self.outcome(start.trigger),
        };
        self.whole.edit().ended = Some((outcome, now));
        let results = self.results_digest();
        let unsandboxed = self.jobs.map().values().any(is_unsandboxed);
        self.notes.acts.push(Act::RunEnded { run: self.id.clone(), outcome, results, unsandboxed });
    }

    /// The worst outcome among the jobs that count. One that another job aborted has not passed: nobody stopped the run.
    fn outcome(&self, trigger: Trigger) -> Outcome {
        let rank = |outcome: Outcome| match outcome {
            Outcome::Passed | Outcome::Skipped => 0,
            Outcome::Cancelled => 1,
            Outcome::Errored => 2,
            Outcome::TimedOut => 3,
            Outcome::Failed => 4,
        };
        let counting = self.jobs.map().iter().filter_map(|(job, state)| {
            let spec = self.graph.job(JobIndex(*job));
            match state {
                JobState::Done { result, .. } if spec.fails_run_of(trigger) => Some(result.outcome),
                _ => None,
            }
        });
        match counting.max_by_key(|outcome| rank(*outcome)) {
            None | Some(Outcome::Passed | Outcome::Skipped) => Outcome::Passed,
            Some(Outcome::Cancelled) => Outcome::Failed,
            Some(worst) => worst,
        }
    }
}

/// Whether a result may count for the bar: passed, or skipped because no path concerned it. That at least one required
/// job passed is for the gate to check.
pub fn counts(result: &JobResult) -> bool {
    result.outcome == Outcome::Passed || result.skip == Some(SkipReason::When)
}

type Ending = (JobIndex, Arc<JobResult>, Option<RunId>);

fn skipped(reason: SkipReason) -> Arc<JobResult> {
    let why = match &reason {
        SkipReason::When => {
            "no changed path is under its `when`, or under that of a job that it needs".to_owned()
        }
        SkipReason::Need { job } => format!("it needs `{job}`, which did not pass"),
    };
    Arc::new(JobResult { skip: Some(reason), ..JobResult::unrun(Outcome::Skipped, why) })
}

/// Why a job cannot run once one that it needs has ended so; `None`: it can.
fn dragged(result: &JobResult, name: &JobName) -> Option<SkipReason> {
    match (result.outcome, &result.skip) {
        (Outcome::Passed, _) => None,
        (Outcome::Skipped, Some(SkipReason::When)) => Some(SkipReason::When),
        _ => Some(SkipReason::Need { job: name.clone() }),
    }
}

fn is_unsandboxed(state: &JobState) -> bool {
    matches!(state, JobState::Done { result, .. } if result.unsandboxed)
}

fn is_done(state: Option<&JobState>) -> bool {
    matches!(state, Some(JobState::Done { .. }))
}
