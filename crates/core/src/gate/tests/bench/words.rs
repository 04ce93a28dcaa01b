//! The words of a script: what each has happen in the world of a gate.

use super::*;

impl Bench {
    pub(in crate::gate::tests) fn word(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = words.get(1).and_then(|word| word.parse().ok()).unwrap_or(0);
        let known = self.look(words[0], number)
            || self.happens(words[0], number)
            || self.is_commanded(words[0], number);
        if !known {
            self.forge_does(words[0], number, words[2.min(words.len())..].join(" "));
            self.ring();
        }
    }

    /// Plays words that semicolons divide, and logs each before what comes of it.
    pub(in crate::gate::tests) fn play(&mut self, script: &str) {
        for line in script.split(';').map(str::trim) {
            self.log += &format!("{line}\n");
            self.word(line);
        }
    }

    /// What is looked at, without anything happening.
    fn look(&mut self, word: &str, number: u64) -> bool {
        let text = match word {
            "noted" => format!("{:?}", self.noted),
            "why" => {
                let reasons = self.gate.state.reasons(ChangeNumber(number), Timestamp(self.clock));
                reasons.iter().map(ToString::to_string).collect::<Vec<String>>().join("; ")
            }
            "check" => {
                let plan = self.gate.state.plan(Timestamp(self.clock));
                let key = EffectKey::level("set-check", format!("{} {number}", self.gate.state.id));
                let Some(Effect::SetCheck { check, .. }) = plan.effects.get(&key) else {
                    unreachable!("every open change has a check")
                };
                format!("{:?}: {}", check.verdict, check.text)
            }
            "flags" => {
                let flags = self.gate.state.branch().flags;
                let all = [("forge", flags.forge), ("runs", flags.runs), ("state", flags.state)];
                let up = all.iter().filter(|(_, flag)| flag.is_set()).map(|(name, _)| *name);
                format!("up: {}", up.collect::<Vec<&str>>().join(" "))
            }
            _ => return false,
        };
        self.say(&text);
        true
    }

    /// What happens beside the forge.
    fn happens(&mut self, word: &str, number: u64) -> bool {
        match word {
            "pass" => self.end(number, &[], Outcome::Passed),
            "fail" => self.end(number, &["unit"], Outcome::Failed),
            "fail-lint" => self.end(number, &["lint"], Outcome::Failed),
            "fail-wheel" => self.end(number, &["wheel"], Outcome::Failed),
            "lint-aborts-unit" => {
                let report = self.aborted(number);
                self.event(report);
            }
            "stopped" => self.end(number, &["lint", "unit"], Outcome::Cancelled),
            "stopped-in-lint" => self.end(number, &["lint"], Outcome::Cancelled),
            "error" => self.end(number, &["unit"], Outcome::Errored),
            "fail-deploy" => self.end(number, &["deploy"], Outcome::Failed),
            "disk-fails" => self.halt(HaltCause::Disk, Some("the disk did not confirm a write")),
            "restart" => self.halt(HaltCause::Disk, None),
            "restored" => self.halt(HaltCause::Restore, Some("3 leaves are lost")),
            "accept-restore" => self.halt(HaltCause::Restore, None),
            "budget" => self.budget_seconds = Some(number as u32),
            "bell" => self.event(GateEvent::Bell(Bell { state_changed: true, ..Bell::default() })),
            "wheel" => self.wheel = true,
            "history" => self.history = true,
            "no-deploy" => drop(self.without.insert("deploy")),
            "all-jobs" => self.without.clear(),
            "no-unit" => drop(self.without.insert("unit")),
            "no-jobs" => self.without.extend(["lint", "unit", "deploy"]),
            "landings-hang" => drop(self.hanging.insert("land ")),
            "graphs-hang" => drop(self.hanging.insert("read-graph")),
            "graphs-come" | "landings-come" => {
                self.hanging.clear();
                self.answers().into_iter().for_each(|answer| self.intake(answer));
            }
            "reads-hang" => self.reading = false,
            "reads-come" => self.reading = true,
            // Time passes and no bell rings.
            "seconds" => {
                self.clock += number as i64 * 1000;
                let came = self.turn(vec![]);
                came.into_iter().for_each(|intake| self.intake(intake));
            }
            _ => return false,
        }
        true
    }

    fn is_commanded(&mut self, word: &str, number: u64) -> bool {
        let change = ChangeNumber(number);
        let revision = self.open.get(&change).map(|known| known.revision.commit);
        let revision = || revision.expect("the change is open");
        let mut by = MAINTAINER;
        let verb = match word {
            "freeze" => Verb::Freeze { why: "release".into() },
            "unfreeze" => Verb::Unfreeze,
            "accept" => {
                by = ADMIN;
                Verb::AcceptTip { tip: commit(self.tip, 1) }
            }
            "hold" => Verb::Hold { change, why: "wait".into() },
            "release" => Verb::Release { change },
            "vouch" | "vouch-as-author" => {
                by = if word == "vouch" { MAINTAINER } else { AUTHOR };
                let expires = Timestamp(self.clock + 100_000);
                Verb::Vouch { change, revision: revision(), definition: None, why: "read it".into(), expires }
            }
            "retry" => Verb::Retry { change, revision: revision(), scope: RetryScope::All },
            "retry-failed" => Verb::Retry { change, revision: revision(), scope: RetryScope::NotPassed },
            "retry-unit" | "retry-lint" | "retry-wheel" => {
                let job = word.trim_start_matches("retry-").to_owned();
                Verb::Retry { change, revision: revision(), scope: RetryScope::Job(job) }
            }
            "run" => Verb::RunManual { job: None },
            "cancel" => Verb::Cancel { run: number, why: "stop".into() },
            _ => return false,
        };
        self.command(by, verb);
        true
    }

    fn known(&mut self, change: ChangeNumber) -> &mut ForgeChange {
        self.open.get_mut(&change).expect("the change is open")
    }

    /// What people do at the forge, which rings for it.
    fn forge_does(&mut self, word: &str, number: u64, rest: String) {
        let change = ChangeNumber(number);
        match word {
            "push" => self.push(number, AUTHOR),
            "twin" => {
                self.twins.insert(change);
                self.push(number, AUTHOR);
                self.known(change).title = "change 1".to_owned();
            }
            "push-as-outsider" => self.push(number, OUTSIDER),
            "push-as-maintainer" => self.push(number, MAINTAINER),
            "approve" => self.review(number, MAINTAINER, Verdict::Approve),
            "approve-as-author" => self.review(number, AUTHOR, Verdict::Approve),
            "object" => self.review(number, MAINTAINER, Verdict::RequestChanges),
            "label" => drop(self.known(change).labels.insert(rest)),
            "unlabel" => drop(self.known(change).labels.remove(&rest)),
            "draft" => self.known(change).draft = true,
            "undraft" => self.known(change).draft = false,
            "came-from-dev" => {
                self.known(change)
                    .reviews
                    .iter_mut()
                    .for_each(|review| review.target = "dev".parse().unwrap());
            }
            "retitle" => self.known(change).title += "!",
            "stack-on-maintainer" => drop(self.known(change).revision.stack_uploaders.insert(MAINTAINER)),
            "stack-on-author" => drop(self.known(change).revision.stack_uploaders.insert(AUTHOR)),
            "stack-on-nobody" => drop(self.known(change).revision.stack_uploaders.insert(NOBODY)),
            "stack-on-outsider" => drop(self.known(change).revision.stack_uploaders.insert(OUTSIDER)),
            "close" => self.closed.extend(self.open.remove(&change)),
            "reopen" => {
                let known = self.closed.pop().unwrap();
                self.open.insert(change, known);
            }
            "spoil" => self.spoilt.extend(self.open.remove_entry(&change)),
            "mend" => self.open.extend(self.spoilt.remove_entry(&change)),
            "conflicts" => drop(self.conflicts.insert(change)),
            "too-slow" => drop(self.too_slow.insert(change)),
            "quick" => drop(self.too_slow.remove(&change)),
            "breaks-definition" => drop(self.breaks_definition.insert(change)),
            "requires-nothing" => drop(self.requires_nothing.insert(change)),
            "edits-definition" => drop(self.edits_definition.insert(change)),
            "deaf" => self.deaf = true,
            "foreign" => self.moves_to(200),
            "foreign-edits-definition" => {
                self.moves_to(200);
                self.target_definition += 1;
            }
            "rewind" => self.tip = self.behind.pop().expect("the branch has been elsewhere"),
            "stall" => self.stalled = Some(self.tip),
            "arrive" => {
                let tip = self.stalled.take().unwrap();
                self.moves_to(tip);
            }
            "power-cut" => self.power_cut = true,
            "forge-lies" => self.forge_lies = true,
            "demote" => drop(self.people.insert(MAINTAINER, Rights { role: Role::Author, authorised: true })),
            "approvals" => self.settings.approvals = Some(number as u32),
            "later" => self.clock += 200_000,
            other => panic!("unknown word {other}"),
        }
    }
}

pub(in crate::gate::tests) fn check(script: &str, expected: Expect) {
    check_with(GateConfig::default(), script, expected);
}

/// The same for what comes of a script after another one, whose own words are not told.
pub(in crate::gate::tests) fn check_after(begun: &str, script: &str, expected: Expect) {
    let mut bench = Bench::new(GateConfig::default());
    bench.play(begun);
    bench.log.clear();
    bench.play(script);
    expected.assert_eq(&bench.log);
}

pub(in crate::gate::tests) fn check_with(config: GateConfig, script: &str, expected: Expect) {
    let mut bench = Bench::new(config);
    bench.play(script);
    expected.assert_eq(&bench.log);
}
