//! A gate with a world around it, and what it does about what happens there.

use super::*;

mod words;

pub(super) use words::{check, check_after, check_with};

pub(super) const MAINTAINER: UserId = UserId(1);
pub(super) const AUTHOR: UserId = UserId(2);
pub(super) const OUTSIDER: UserId = UserId(3);
pub(super) const ADMIN: UserId = UserId(4);

/// Between two looks of the world: longer than a gate rests between two reads of its forge.
pub(super) const STEP_MS: i64 = 60;

/// A gate in memory with a forge, a git and a clock of words. Reads, candidates and landings are carried out at once;
/// runs end when told.
pub(super) struct Bench {
    pub(super) gate: Live<Gate>,
    pub(super) seq: u64,
    pub(super) clock: i64,
    pub(super) tip: u8,
    /// Where the branch was before, newest last.
    pub(super) behind: Vec<u8>,
    /// Who put the branch where it was at first.
    pub(super) begun_by: BTreeSet<UserId>,
    pub(super) open: BTreeMap<ChangeNumber, ForgeChange>,
    pub(super) people: BTreeMap<UserId, Rights>,
    pub(super) settings: GateSettings,
    pub(super) budget_seconds: Option<u32>,
    /// Whether `unit` is made of what `wheel` leaves.
    pub(super) wheel: bool,
    /// Whether `unit` sees history.
    pub(super) history: bool,
    /// Jobs that there are not.
    pub(super) without: BTreeSet<&'static str>,
    /// Changes whose content is that of change 1.
    pub(super) twins: BTreeSet<ChangeNumber>,
    pub(super) conflicts: BTreeSet<ChangeNumber>,
    pub(super) too_slow: BTreeSet<ChangeNumber>,
    pub(super) edits_definition: BTreeSet<ChangeNumber>,
    /// Grows where the definition is edited on the target, and with it in every candidate.
    pub(super) target_definition: u8,
    pub(super) breaks_definition: BTreeSet<ChangeNumber>,
    /// Changes that leave no required job.
    pub(super) requires_nothing: BTreeSet<ChangeNumber>,
    pub(super) runs: BTreeMap<u64, Arc<RunStart>>,
    pub(super) closed: Vec<ForgeChange>,
    /// Open changes whose records are damaged.
    pub(super) spoilt: BTreeMap<ChangeNumber, ForgeChange>,
    /// Whether the forge does not take it that a change has landed.
    pub(super) deaf: bool,
    /// Whether reads come back.
    pub(super) reading: bool,
    /// Kinds of effects whose drivers do not answer now.
    pub(super) hanging: BTreeSet<&'static str>,
    /// What these drivers have, by its newest order.
    pub(super) asked: BTreeMap<EffectKey, (u64, Effect)>,
    /// Set when landings do not come through; holds where the branch would be.
    pub(super) stalled: Option<u8>,
    /// Whether the next landing finds that a power cut has taken its candidate.
    pub(super) power_cut: bool,
    /// Whether the forge confirms the next landing and does not make it.
    pub(super) forge_lies: bool,
    /// Landed commits with a note.
    pub(super) noted: Vec<CommitId>,
    pub(super) log: String,
}

pub(super) fn commit(byte: u8, tag: u8) -> CommitId {
    let mut id = [byte; 20];
    id[0] = tag;
    CommitId(id)
}

pub(super) fn job(name: &str, on: &[Trigger]) -> JobSpec {
    JobSpec::new(name.parse().unwrap(), on.to_vec(), JobBody::script("true"))
}

impl Bench {
    pub(super) fn new(config: GateConfig) -> Bench {
        Bench::begun_by(&[ADMIN], config)
    }

    /// On a branch that these people put where it is.
    pub(super) fn begun_by(begun_by: &[UserId], config: GateConfig) -> Bench {
        let id: GateId = "demo/main".parse().unwrap();
        let gate = Live::load(CellId::Gate(id), Epoch(1), &[], []).unwrap();
        let rights = |role, authorised| Rights { role, authorised };
        let people = BTreeMap::from([
            (MAINTAINER, rights(Role::Maintainer, true)),
            (AUTHOR, rights(Role::Author, true)),
            (OUTSIDER, rights(Role::Author, false)),
            (ADMIN, rights(Role::Admin, true)),
        ]);
        let mut bench = Bench {
            gate,
            seq: 0,
            clock: 1000,
            tip: 1,
            behind: vec![],
            begun_by: begun_by.iter().copied().collect(),
            open: BTreeMap::new(),
            people,
            settings: GateSettings::default(),
            budget_seconds: None,
            wheel: false,
            history: false,
            without: BTreeSet::new(),
            twins: BTreeSet::new(),
            conflicts: BTreeSet::new(),
            too_slow: BTreeSet::new(),
            edits_definition: BTreeSet::new(),
            target_definition: 0,
            breaks_definition: BTreeSet::new(),
            requires_nothing: BTreeSet::new(),
            runs: BTreeMap::new(),
            closed: vec![],
            spoilt: BTreeMap::new(),
            deaf: false,
            reading: true,
            hanging: BTreeSet::new(),
            asked: BTreeMap::new(),
            stalled: None,
            power_cut: false,
            forge_lies: false,
            noted: vec![],
            log: String::new(),
        };
        bench.event(GateEvent::Configured(Box::new(config)));
        bench
    }

    pub(super) fn event(&mut self, event: GateEvent) {
        self.intake(Intake::Event(event));
    }

    pub(super) fn intake(&mut self, first: Intake<GateEvent>) {
        let mut open = VecDeque::from([first]);
        while let Some(intake) = open.pop_front() {
            open.extend(self.turn(vec![intake]));
        }
    }

    /// One turn; answers what came of its effects. Without an intake, only the time has come for something.
    pub(super) fn turn(&mut self, intake: Vec<Intake<GateEvent>>) -> Vec<Intake<GateEvent>> {
        self.clock += STEP_MS;
        let (first, at) = (self.seq + 1, Timestamp(self.clock));
        self.seq += 1.max(intake.len() as u64);
        let inbox: Vec<_> =
            (first..).zip(intake).map(|(seq, intake)| Delivered { seq, at, intake }).collect();
        let turn = self.gate.turn(&inbox, at);
        for (_, message) in &turn.write.messages {
            self.message(message);
        }
        for answer in turn.answers {
            self.say(&format!("answer {:?}", answer.result.map_err(|refusal| refusal.why)));
        }
        for act in turn.write.acts.iter().filter(|act| !matches!(act, Act::Command { .. })) {
            self.act(act);
        }
        let mut came = Vec::new();
        for dispatch in turn.dispatch {
            match dispatch {
                Dispatch::Do { key, token, effect } if self.hangs(&key) => {
                    self.asked.insert(key, (token, effect));
                }
                Dispatch::Cancel { key, .. } if self.hangs(&key) => {}
                Dispatch::Do { key, token, effect } => {
                    came.extend(self.carry_out(&effect).map(|result| done(key, token, result)));
                }
                Dispatch::Cancel { key, token, effect: Effect::Land(landing) } => {
                    let candidate = landing.candidate;
                    let result = GateEvent::LandTried { candidate, result: LandTried::Withdrawn };
                    came.push(done(key, token, Some(result)));
                }
                Dispatch::Cancel { .. } => {}
            }
        }
        came
    }

    fn hangs(&self, key: &EffectKey) -> bool {
        self.hanging.iter().any(|kind| key.as_str().starts_with(kind))
    }

    /// What the drivers that hang would answer now.
    pub(super) fn answers(&mut self) -> Vec<Intake<GateEvent>> {
        let asked = std::mem::take(&mut self.asked);
        let answer = |(key, (token, effect)): (EffectKey, (u64, Effect))| {
            self.carry_out(&effect).map(|result| done(key, token, result))
        };
        asked.into_iter().filter_map(answer).collect()
    }

    fn say(&mut self, text: &str) {
        self.log += &format!("  {text}\n");
    }

    fn act(&mut self, act: &Act) {
        match act {
            Act::Landed(act) => self.say(&format!("landed {} with {:?}", act.change, act.results.keys())),
            Act::Ejected { change, why, .. } => self.say(&format!("ejected {change}: {why}")),
            Act::ForeignPush { .. } => self.say("foreign push"),
            Act::Froze { why, .. } => self.say(&format!("froze: {why}")),
            _ => {}
        }
    }

    fn message(&mut self, message: &Message) {
        match message {
            Message::Start(start) => {
                let number = start.run.number;
                self.runs.insert(number, start.clone());
                let change = start.facts.get("CHANGE").map_or("-".into(), |change| change.clone());
                let names = start.carried.keys().map(|job| format!(" {}", start.graph.job(*job).name));
                let carried = if start.carried.is_empty() { "" } else { " carried" };
                let carried = format!("{carried}{}", names.collect::<String>());
                let text =
                    format!("run {number}: {:?} of {change} ({}){carried}", start.trigger, start.reason);
                self.say(&text);
            }
            Message::Cancel { why } => self.say(&format!("cancel: {why}")),
            _ => {}
        }
    }

    fn carry_out(&mut self, effect: &Effect) -> Option<Option<GateEvent>> {
        Some(match effect {
            Effect::ReadForge { .. } if !self.reading => return None,
            Effect::ReadForge { .. } => Some(GateEvent::ForgeRead(Box::new(self.read()))),
            Effect::MakeCandidate { id, spec, .. } => {
                Some(GateEvent::CandidateMade { id: *id, result: Box::new(self.merge(spec)) })
            }
            Effect::ReadGraph { commit, .. } => {
                Some(GateEvent::GraphRead { commit: *commit, graph: Ok(self.graph()) })
            }
            Effect::Land(landing) if self.stalled.is_some() => {
                self.stalled = Some(landing.to.0[1]);
                self.say(&format!("land {} is on its way", landing.change));
                return None;
            }
            Effect::Land(landing) if std::mem::take(&mut self.power_cut) => {
                self.say(&format!("land {} -> its candidate is gone", landing.change));
                Some(GateEvent::LandTried { candidate: landing.candidate, result: LandTried::Lost })
            }
            Effect::Land(landing) if !self.open.contains_key(&landing.change) => {
                self.say(&format!("land {} -> it is not open", landing.change));
                Some(GateEvent::LandTried { candidate: landing.candidate, result: LandTried::Gone })
            }
            Effect::Land(landing) => {
                let result = if std::mem::take(&mut self.forge_lies) {
                    LandTried::Broken { tip: Some(commit(self.tip, 1)) }
                } else if landing.from == commit(self.tip, 1) {
                    self.moves_to(landing.to.0[1]);
                    LandTried::Landed
                } else {
                    LandTried::Moved { tip: Some(commit(self.tip, 1)) }
                };
                self.say(&format!("land {} -> {result:?}", landing.change));
                Some(GateEvent::LandTried { candidate: landing.candidate, result })
            }
            Effect::MarkLanded { .. } if self.deaf => return None,
            Effect::MarkLanded { change, .. } => {
                self.open.remove(change);
                None
            }
            Effect::Alert { text, .. } => {
                self.say(&format!("alert: {}", text.split(';').next().unwrap()));
                None
            }
            Effect::NoteLanding { commit, .. } => {
                self.noted.push(*commit);
                None
            }
            Effect::SetCheck { .. } => None,
            other => panic!("a gate does not owe {other:?}"),
        })
    }

    fn moves_to(&mut self, tip: u8) {
        self.behind.push(std::mem::replace(&mut self.tip, tip));
    }

    pub(super) fn read(&self) -> ForgeRead {
        let landed = self.gate.state.branch().kept();
        let contains = |byte: &u8| landed == Some(commit(*byte, 1));
        ForgeRead {
            began: Timestamp(self.clock),
            landed,
            snapshot: Snapshot {
                tip: Some(Tip {
                    commit: commit(self.tip, 1),
                    tree: TreeId([self.tip; 20]),
                    time: Timestamp(0),
                    settings: Ok(self.settings),
                }),
                keeps_landed: landed.is_none() || self.behind.iter().chain([&self.tip]).any(contains),
                begun_by: self.begun_by.clone(),
                changes: self.open.values().cloned().collect(),
                unreadable: self.spoilt.keys().map(|number| (*number, "it is damaged".to_owned())).collect(),
                people: self.people.clone(),
            },
        }
    }

    fn graph(&self) -> JobGraph {
        let mut jobs = vec![
            job("lint", &[Trigger::Change]),
            job("unit", &[Trigger::Change, Trigger::Queue]),
            job("deploy", &[Trigger::Land]),
        ];
        if self.history {
            jobs[1].body = Arc::new(JobBody { history: true, ..JobBody::script("git describe") });
        }
        jobs.retain(|job| !self.without.contains(job.name.to_string().as_str()));
        if self.wheel {
            jobs.insert(0, job("wheel", &[]));
            jobs[2].needs = vec![JobIndex(0)];
        }
        JobGraph { jobs: jobs.into(), budget_seconds: self.budget_seconds }
    }

    fn merge(&self, spec: &CandidateSpec) -> CandidateResult {
        let number = ChangeNumber(u64::from(spec.revision.0[1]));
        if self.conflicts.contains(&number) && spec.parent != commit(1, 1) {
            return CandidateResult::Conflict { paths: vec!["a.txt".into()] };
        }
        if self.too_slow.contains(&number) && spec.parent != commit(1, 1) {
            return CandidateResult::TooSlow { why: "git could not merge it within 60 s".into() };
        }
        if self.breaks_definition.contains(&number) {
            let errors = vec!["towpath.yaml:1:1: broken".to_owned()];
            return CandidateResult::BadDefinition { definition: Digest([8; 32]), errors };
        }
        let mixed = Digest::of_fields([&spec.parent.0[..], &spec.revision.0]).0;
        let content = if self.twins.contains(&number) { commit(1, 101) } else { spec.revision };
        let content = Digest::of_fields([&spec.parent.0[..], &content.0]).0;
        let target = Digest([self.target_definition; 32]);
        let edits = self.edits_definition.contains(&number);
        let mut jobs = self.graph().jobs.to_vec();
        if edits {
            let opens_all = JobBody { network: true, user_namespaces: true, ..JobBody::script("true") };
            let own = job("own", &[Trigger::Change]);
            jobs.push(JobSpec { origin: Origin::Own, body: Arc::new(opens_all), ..own });
        }
        CandidateResult::Made(Candidate {
            commit: CommitId(std::array::from_fn(|at| if at == 0 { 1 } else { mixed[1] })),
            tree: TreeId(std::array::from_fn(|at| content[at])),
            changed_paths: 1,
            target_definition: target,
            definition: if edits { Digest([100 + self.target_definition; 32]) } else { target },
            graph: JobGraph { jobs: jobs.into(), ..self.graph() },
            requires_nothing: self.requires_nothing.contains(&number),
        })
    }

    pub(super) fn ring(&mut self) {
        self.event(GateEvent::Bell(Bell { forge_changed: true, ..Bell::default() }));
    }

    pub(super) fn push(&mut self, number: u64, uploader: UserId) {
        let change = ChangeNumber(number);
        let revision = self.open.get(&change).map_or(1, |known| known.revision.number + 1);
        let facts = RevisionFacts {
            commit: commit(number as u8, 100 + revision as u8),
            number: revision,
            time: Timestamp(0),
            uploader,
            stack_uploaders: BTreeSet::new(),
        };
        let new = ForgeChange {
            number: change,
            title: format!("change {number}"),
            body: String::new(),
            draft: false,
            labels: BTreeSet::new(),
            owner: uploader,
            revision: facts.clone(),
            reviews: vec![],
            came: None,
        };
        self.open.entry(change).or_insert(new).revision = facts;
    }

    pub(super) fn review(&mut self, number: u64, by: UserId, verdict: Verdict) {
        let at = Timestamp(self.clock);
        let target = self.gate.state.id.branch.clone();
        let state = &self.gate.state;
        let shown = state.changes().get(&ChangeNumber(number));
        let definition = shown.and_then(|change| state.edited_definition(change));
        let change = self.open.get_mut(&ChangeNumber(number)).unwrap();
        let message = message_digest(&change.title, &change.body);
        let revision = change.revision.commit;
        change.reviews.push(Review { by, verdict, revision, target, definition, message, at });
    }

    pub(super) fn end(&mut self, run: u64, failing: &[&str], outcome: Outcome) {
        let report = self.report(run, failing, outcome);
        self.event(report);
    }

    /// What a run says at its end.
    pub(super) fn report(&self, run: u64, failing: &[&str], outcome: Outcome) -> GateEvent {
        let start = self.runs.get(&run).unwrap_or_else(|| panic!("run {run} was not started")).clone();
        let digests = start.graph.digests();
        let jobs: Vec<JobReport> = start
            .graph
            .iter()
            .map(|(index, spec)| JobReport {
                job: index,
                name: spec.name.to_string(),
                digest: digests[index.0 as usize],
                result: match start.carried.get(&index) {
                    Some(carried) => carried.result.clone(),
                    None if spec
                        .needs
                        .iter()
                        .any(|need| failing.contains(&start.graph.job(*need).name.as_str())) =>
                    {
                        Arc::new(JobResult::unrun(Outcome::Skipped, "it needs one that did not pass"))
                    }
                    None if failing.contains(&spec.name.as_str()) => {
                        Arc::new(JobResult::unrun(outcome, "said so"))
                    }
                    None => Arc::new(JobResult::unrun(Outcome::Passed, "")),
                },
                carried: start.carried.get(&index).map(|carried| carried.run.clone()),
            })
            .collect();
        let outcome = if failing.is_empty() { Outcome::Passed } else { outcome };
        GateEvent::RunEnded(Arc::new(RunReport { run: start.run.clone(), outcome, jobs }))
    }

    /// What a run says in which `lint` failed and aborted `unit`.
    fn aborted(&self, run: u64) -> GateEvent {
        let GateEvent::RunEnded(report) = self.report(run, &["lint", "unit"], Outcome::Failed) else {
            unreachable!("a report says how a run ended")
        };
        // Whatever it says of itself: nobody has stopped it.
        let mut report = RunReport { outcome: Outcome::Cancelled, ..(*report).clone() };
        let unit = report.jobs.iter_mut().find(|job| job.name == "unit").expect("every run has it");
        unit.result = Arc::new(JobResult::unrun(Outcome::Cancelled, "`lint` did not pass and aborts it"));
        GateEvent::RunEnded(Arc::new(report))
    }

    pub(super) fn command(&mut self, by: UserId, verb: Verb) {
        let by = Actor { user: by, name: format!("user {by}") };
        self.event(GateEvent::Command(Box::new(Command { id: 1, by, verb })));
    }

    fn halt(&mut self, cause: HaltCause, why: Option<&str>) {
        self.event(GateEvent::Halts(Halts::from([(cause, why.map(str::to_owned))])));
    }
}

pub(super) fn done(key: EffectKey, token: u64, result: Option<GateEvent>) -> Intake<GateEvent> {
    Intake::Done { key, token, result }
}
