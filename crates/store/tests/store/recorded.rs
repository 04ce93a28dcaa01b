//! Records: each noun is written, changed and read back.

use towpath_core::cell::RefusalClass;
use towpath_core::effect::{Check, EffectKey, Verdict};
use towpath_core::graph::{JobIndex, Outcome, Trigger};
use towpath_core::ids::{
    BranchName, ChangeNumber, CommitId, Digest, EnvironmentId, GateId, LeaseId, RepoName, RunId, Timestamp,
    UserId,
};
use towpath_core::policy::{Rights, Role};
use towpath_store::records::*;
use towpath_store::{Store, Tx, WriteError};

use crate::subject::{NOW, Place};

fn repo() -> RepoName {
    "demo".parse().unwrap()
}

fn commit(fill: u8) -> CommitId {
    CommitId([fill; 20])
}

fn write<T: Send + 'static>(
    store: &Store,
    work: impl FnOnce(&mut Tx<'_>) -> Result<T, WriteError> + Send + 'static,
) -> T {
    store.writer().write(work).unwrap()
}

fn with_repo() -> (Place, Store) {
    let place = Place::new();
    let store = place.open();
    let demo = Repo { name: repo(), settings: "{}".into(), hook_secret: None, created_at: NOW };
    write(&store, move |tx| tx.add_repo(&demo));
    (place, store)
}

fn a_change(number: u64) -> ChangeRow {
    ChangeRow {
        repo: repo(),
        number: ChangeNumber(number),
        target: "main".parse().unwrap(),
        owner: UserId(1),
        state: "open".into(),
        source: Some("lock".parse().unwrap()),
        change_id: Some("I123".into()),
        updated_at: NOW,
        meta: commit(number as u8),
        body: "{}".into(),
    }
}

#[test]
fn users_keep_their_numbers_and_names() {
    let place = Place::new();
    let store = place.open();
    let ann = write(&store, |tx| tx.add_user("ann", Some("$argon2id$x"), NOW));
    let bob = write(&store, |tx| tx.add_user("bob", None, NOW));
    assert_eq!((ann, bob), (UserId(1), UserId(2)));
    let taken = store.writer().write(|tx| tx.add_user("ann", None, NOW));
    assert_eq!(taken, Err(WriteError::Exists { what: "user `ann`".into() }));
    write(&store, move |tx| {
        tx.set_password(ann, None)?;
        tx.set_disabled(ann, true)
    });
    let view = store.reader().snapshot().unwrap();
    let expect = User { id: ann, name: "ann".into(), password: None, disabled: true, created_at: NOW };
    assert_eq!(view.user(ann).unwrap(), Some(expect.clone()));
    assert_eq!(view.user_by_name("ann").unwrap(), Some(expect));
    assert_eq!(view.users().unwrap().len(), 2);
    let missing = store.writer().write(|tx| tx.set_password(UserId(9), None));
    assert_eq!(missing, Err(WriteError::Missing { what: "user 9".into() }));
}

fn token(owner: UserId) -> Token {
    Token {
        number: 0,
        hash: Digest::of(b"secret"),
        prefix: "tp_ab".into(),
        owner,
        label: "laptop".into(),
        scope: Scope { repos: Some(vec![repo()]), verbs: Some(vec!["push".into()]) },
        made_by: None,
        created_at: NOW,
        expires_at: Some(NOW.plus_seconds(60)),
        used_at: None,
        revoked_at: None,
    }
}

#[test]
fn tokens_end_by_time_and_by_revocation() {
    let place = Place::new();
    let store = place.open();
    let owner = write(&store, |tx| tx.add_user("ann", None, NOW));
    let token = token(owner);
    let hash = token.hash;
    let expect = Token { number: 1, used_at: Some(NOW), ..token.clone() };
    write(&store, move |tx| {
        let number = tx.add_token(&token)?;
        tx.note_token_use(&hash, NOW)?;
        Ok(number)
    });
    let stored = store.reader().snapshot().unwrap().token(&hash).unwrap().unwrap();
    assert_eq!(stored, expect);
    assert!(stored.is_valid(NOW) && !stored.is_valid(NOW.plus_seconds(60)));
    write(&store, |tx| tx.revoke_token(1, NOW));
    write(&store, |tx| tx.revoke_token(1, NOW.plus_seconds(1)));
    let view = store.reader().snapshot().unwrap();
    let stored = view.token_by_number(1).unwrap().unwrap();
    assert_eq!((stored.is_valid(NOW), stored.revoked_at), (false, Some(NOW)));
    assert_eq!(view.tokens_of(owner).unwrap(), [stored]);
}

#[test]
fn sessions_end_with_their_time_and_their_user() {
    let place = Place::new();
    let store = place.open();
    let owner = write(&store, |tx| tx.add_user("ann", None, NOW));
    let token = token(owner);
    let by = Some(token.hash);
    write(&store, move |tx| tx.add_token(&token));
    let [first, second] = [(b"1", by), (b"2", None)].map(|(id, token)| Session {
        hash: Digest::of(id),
        csrf: "c".into(),
        owner,
        token,
        created_at: NOW,
        expires_at: NOW.plus_seconds(60),
    });
    let (one, two) = (first.clone(), second.clone());
    write(&store, move |tx| tx.add_session(&one).and_then(|()| tx.add_session(&two)));
    let found = |hash, now| store.reader().snapshot().unwrap().session(hash, now).unwrap();
    assert_eq!(found(&first.hash, NOW), Some(first.clone()));
    assert_eq!(found(&first.hash, NOW.plus_seconds(60)), None);
    let hash = first.hash;
    write(&store, move |tx| tx.remove_session(&hash));
    assert_eq!(found(&first.hash, NOW), None);
    write(&store, move |tx| tx.set_disabled(owner, true));
    assert_eq!(found(&second.hash, NOW), None);
    write(&store, |tx| tx.remove_expired_sessions(NOW));
}

#[test]
fn rights_are_given_changed_and_taken() {
    let (_place, store) = with_repo();
    let ann = write(&store, |tx| tx.add_user("ann", None, NOW));
    let rights = Rights { role: Role::Maintainer, authorised: true };
    write(&store, move |tx| {
        tx.set_right(&repo(), ann, Some(Rights { role: Role::Reader, authorised: false }))
    });
    write(&store, move |tx| tx.set_right(&repo(), ann, Some(rights)));
    let view = store.reader().snapshot().unwrap();
    assert_eq!(view.right(&repo(), ann).unwrap(), Some(rights));
    assert_eq!(view.rights_on(&repo()).unwrap(), [Right { repo: repo(), holder: ann, rights }]);
    drop(view);
    write(&store, move |tx| tx.set_right(&repo(), ann, None));
    assert_eq!(store.reader().snapshot().unwrap().right(&repo(), ann).unwrap(), None);
    let nobody = store.writer().write(move |tx| tx.set_right(&repo(), UserId(9), Some(rights)));
    assert_eq!(nobody, Err(WriteError::Missing { what: "user 9".into() }));
}

#[test]
fn repos_are_unique_and_their_settings_change() {
    let (_place, store) = with_repo();
    let again = Repo { name: repo(), settings: "{}".into(), hook_secret: None, created_at: NOW };
    let taken = store.writer().write(move |tx| tx.add_repo(&again));
    assert_eq!(taken, Err(WriteError::Exists { what: "repo `demo`".into() }));
    write(&store, |tx| {
        let before = tx.repo(&repo())?.expect("it was added").settings;
        tx.replace_repo_settings(&repo(), (&before, "{\"a\":1}"))?;
        // Whoever has not seen these does not write over them.
        let late = tx.replace_repo_settings(&repo(), (&before, "{\"b\":1}"));
        assert!(matches!(late, Err(WriteError::Refused(refusal)) if refusal.class == RefusalClass::Conflict));
        tx.set_hook_secret(&repo(), Some("hook"))?;
        tx.put_setting("title", "\"T\"")
    });
    let view = store.reader().snapshot().unwrap();
    let stored = view.repo(&repo()).unwrap().unwrap();
    assert_eq!((stored.settings.as_str(), stored.hook_secret.as_deref()), ("{\"a\":1}", Some("hook")));
    assert_eq!(view.repos().unwrap(), [stored]);
    assert_eq!(view.setting("title").unwrap().as_deref(), Some("\"T\""));
}

#[test]
fn a_change_is_set_as_a_whole_as_often_as_one_likes() {
    let (_place, store) = with_repo();
    let change = a_change(7);
    let later = ChangeRow { state: "landed".into(), meta: commit(9), ..change.clone() };
    let expect = later.clone();
    write(&store, move |tx| {
        [change, later.clone(), later].iter().try_for_each(|change| tx.put_change(change))
    });
    let view = store.reader().snapshot().unwrap();
    assert_eq!(view.change(&repo(), ChangeNumber(7)).unwrap(), Some(expect));
    assert_eq!(view.change_metas(&repo()).unwrap(), [(ChangeNumber(7), commit(9))]);
}

#[test]
fn changes_are_found_by_what_is_known_of_them_newest_first() {
    let (_place, store) = with_repo();
    write(&store, |tx| (1..=5).try_for_each(|number| tx.put_change(&a_change(number))));
    write(&store, |tx| tx.put_change(&ChangeRow { state: "closed".into(), owner: UserId(2), ..a_change(4) }));
    let view = store.reader().snapshot().unwrap();
    let numbers = |query: ChangeQuery| -> Vec<u64> {
        view.changes(&query).unwrap().iter().map(|change| change.number.0).collect()
    };
    let page = |below| ChangeQuery { repo: Some(repo()), below, count: Some(2), ..ChangeQuery::default() };
    assert_eq!(numbers(page(None)), [5, 4]);
    assert_eq!(numbers(page(Some(ChangeNumber(4)))), [3, 2]);
    assert_eq!(numbers(ChangeQuery { state: Some("open".into()), ..ChangeQuery::default() }), [5, 3, 2, 1]);
    assert_eq!(numbers(ChangeQuery { owner: Some(UserId(2)), ..ChangeQuery::default() }), [4]);
    assert_eq!(numbers(ChangeQuery { source: Some("x".parse().unwrap()), ..ChangeQuery::default() }), [0; 0]);
    assert_eq!(
        numbers(ChangeQuery { change_id: Some("I123".into()), count: Some(1), ..ChangeQuery::default() }),
        [5]
    );
    assert_eq!(
        numbers(ChangeQuery { target: Some("next".parse().unwrap()), ..ChangeQuery::default() }),
        [0; 0]
    );
}

#[test]
fn an_alert_is_told_once_in_a_row() {
    let (_place, store) = with_repo();
    let cause = EffectKey::once("alert-halt", "demo/main Disk", 1);
    let alert = |text: &str| Alert {
        repo: repo(),
        branch: "main".parse().unwrap(),
        cause: Some(cause.clone()),
        text: text.into(),
        at: NOW,
    };
    let alerts = [alert("a"), alert("a"), alert("b"), alert("a")];
    write(&store, move |tx| alerts.iter().try_for_each(|alert| tx.add_alert(alert)));
    let told = store.reader().snapshot().unwrap().alerts(&repo(), 9).unwrap();
    assert_eq!(told.iter().map(|alert| alert.text.as_str()).collect::<Vec<_>>(), ["a", "b", "a"]);
    assert!(told.iter().all(|alert| alert.cause.as_ref() == Some(&cause)));
    let of = |branch: &str| {
        let gate = GateId { repo: repo(), branch: branch.parse().unwrap() };
        store.reader().snapshot().unwrap().alerts_of(&gate, 2).unwrap()
    };
    assert_eq!((of("main"), of("next").len()), (told[..2].to_vec(), 0));
}

#[test]
fn an_alert_of_another_cause_is_told_anew_whatever_it_says_and_one_of_the_same_is_as_new_as_its_last_telling()
{
    let (_place, store) = with_repo();
    let frozen = |at: i64| Some(EffectKey::once("alert-frozen", format!("demo/main {at}"), 1));
    let told = [(None, 1), (None, 2), (frozen(3), 3), (frozen(3), 4), (frozen(5), 5), (None, 6)];
    let alerts = told.map(|(cause, at)| Alert {
        repo: repo(),
        branch: "main".parse().unwrap(),
        cause,
        text: "demo/main is frozen".into(),
        at: Timestamp(at),
    });
    write(&store, move |tx| alerts.iter().try_for_each(|alert| tx.add_alert(alert)));
    let kept = store.reader().snapshot().unwrap().alerts(&repo(), 9).unwrap();
    let kept: Vec<(Option<EffectKey>, i64)> =
        kept.into_iter().map(|alert| (alert.cause, alert.at.0)).collect();
    assert_eq!(kept, [(None, 6), (frozen(5), 5), (frozen(3), 4), (None, 2)]);
}

#[test]
fn the_newest_check_of_a_revision_is_shown() {
    let (_place, store) = with_repo();
    let [main, release] = ["main", "release"].map(|name| name.parse::<BranchName>().unwrap());
    let check = |verdict, text: &str| StoredCheck {
        branch: main.clone(),
        revision: commit(1),
        check: Check { verdict, text: text.into(), run: Some("demo/main/1".parse().unwrap()) },
        at: NOW,
    };
    let (pending, done) = (check(Verdict::Pending, "runs"), check(Verdict::Success, "passed"));
    let late = StoredCheck { branch: release.clone(), ..check(Verdict::Failure, "of another gate") };
    let expect = [done.clone(), late.clone()];
    write(&store, move |tx| {
        tx.put_check(&repo(), ChangeNumber(1), &pending)?;
        tx.put_check(&repo(), ChangeNumber(1), &done)?;
        tx.put_check(&repo(), ChangeNumber(1), &late)
    });
    let view = store.reader().snapshot().unwrap();
    let shown = [main, release].map(|branch| view.checks(&repo(), ChangeNumber(1), &branch).unwrap());
    assert_eq!(shown, expect.map(|check| vec![check]));
}

fn run_row(number: u64, at: i64) -> RunRow {
    RunRow {
        run: format!("demo/main/{number}").parse().unwrap(),
        trigger: Trigger::Queue,
        change: Some(ChangeNumber(number % 2)),
        commit: commit(1),
        reason: "new revision".into(),
        outcome: None,
        unsandboxed: false,
        started_at: Timestamp(at),
        ended_at: None,
    }
}

#[test]
fn runs_are_listed_by_page_and_filter() {
    let (_place, store) = with_repo();
    write(&store, |tx| (1..=6).try_for_each(|number| tx.put_run(&run_row(number, 100 + number as i64 / 3))));
    let ended = RunRow { outcome: Some(Outcome::Failed), ended_at: Some(NOW), ..run_row(6, 102) };
    let expect = ended.clone();
    write(&store, move |tx| tx.put_run(&ended));
    let view = store.reader().snapshot().unwrap();
    let mut seen = Vec::new();
    let mut query = RunQuery { count: 2, ..RunQuery::default() };
    loop {
        let page = view.runs(&query).unwrap();
        seen.extend(page.iter().map(|run| run.run.number));
        let Some(last) = page.last() else { break };
        query.after = Some(last.cursor());
    }
    assert_eq!(seen, [6, 5, 4, 3, 2, 1]);
    let numbers = |query: RunQuery| -> Vec<u64> {
        view.runs(&RunQuery { count: 9, ..query }).unwrap().iter().map(|run| run.run.number).collect()
    };
    assert_eq!(numbers(RunQuery { unended: true, ..RunQuery::default() }), [5, 4, 3, 2, 1]);
    let of_change = RunQuery { repo: Some(repo()), change: Some(ChangeNumber(1)), ..RunQuery::default() };
    assert_eq!(numbers(of_change), [5, 3, 1]);
    let of_branch = RunQuery { branch: Some("next".parse().unwrap()), ..RunQuery::default() };
    assert_eq!(numbers(of_branch), [0; 0]);
    assert_eq!(view.run(&expect.run).unwrap(), Some(expect));
    let RunId { gate, .. } = run_row(1, 1).run;
    assert_eq!(view.last_run_number(&gate).unwrap(), Some(6));
}

#[test]
fn attempts_and_tests_of_a_run() {
    let (_place, store) = with_repo();
    let run: RunId = "demo/main/1".parse().unwrap();
    let job = JobRow {
        run: run.clone(),
        job: JobIndex(2),
        attempt: 1,
        name: "unit[1/2]".parse().unwrap(),
        stage: JobStage::Running,
        lease: Some(LeaseId([3; 16])),
        outcome: None,
        why: String::new(),
        unsandboxed: true,
        started_at: Some(NOW),
        ended_at: None,
        log: None,
    };
    let ended = JobRow {
        stage: JobStage::Ended,
        outcome: Some(Outcome::Passed),
        ended_at: Some(NOW),
        log: Some(Digest::of(b"log")),
        ..job.clone()
    };
    let test = |name: &str, outcome| TestRow {
        run: run.clone(),
        job: JobIndex(2),
        attempt: 1,
        name: name.into(),
        outcome,
        duration_ms: 12,
        message: Some("boom".into()),
        at: NOW,
    };
    let tests =
        [test("a", TestOutcome::Passed), test("a", TestOutcome::Failed), test("b", TestOutcome::Skipped)];
    let (rows, stored, id) = ([job, ended.clone()], tests.clone(), run.clone());
    write(&store, move |tx| {
        rows.iter().try_for_each(|row| tx.put_job(row))?;
        tx.put_tests((&id, JobIndex(2), 1), &stored[..1])?;
        tx.put_tests((&id, JobIndex(2), 1), &stored)
    });
    let view = store.reader().snapshot().unwrap();
    assert_eq!(view.jobs(&run).unwrap(), std::slice::from_ref(&ended));
    assert_eq!(view.attempts(&run, JobIndex(2)).unwrap(), std::slice::from_ref(&ended));
    assert_eq!(view.job_by_lease(LeaseId([3; 16])).unwrap(), Some(ended));
    let of = (&run, JobIndex(2), 1);
    let [passed, failed, skipped] = tests;
    let all = TestPage { count: 9, ..TestPage::default() };
    assert_eq!(view.tests(of, all).unwrap(), [failed.clone(), passed, skipped.clone()]);
    assert_eq!(view.tests(of, TestPage { failed: true, ..all }).unwrap(), [failed]);
    assert_eq!(view.tests(of, TestPage { skip: 2, count: 1, ..all }).unwrap(), [skipped]);
    assert_eq!(view.tests((&run, JobIndex(2), 2), all).unwrap(), []);
    let counts = [(TestOutcome::Failed, 1), (TestOutcome::Passed, 1), (TestOutcome::Skipped, 1)];
    assert_eq!(view.test_counts(of).unwrap(), counts);
    assert_eq!(view.test_history(&repo(), "a", 9).unwrap().len(), 2);
}

#[test]
fn deployments_stand_by_environment_and_what_runs_there_is_never_pruned() {
    let (_place, store) = with_repo();
    let place = |name: &str| EnvironmentId { repo: repo(), name: name.parse().unwrap() };
    let deployment = |number, environment: &str| Deployment {
        repo: repo(),
        environment: environment.parse().unwrap(),
        number,
        commit: commit(1),
        run: Some("demo/main/1".parse().unwrap()),
        job: Some("deploy".parse().unwrap()),
        actor: None,
        outcome: None,
        why: String::new(),
        started_at: NOW,
        ended_at: None,
    };
    let ended = |number, outcome| Deployment {
        outcome: Some(outcome),
        ended_at: Some(NOW),
        ..deployment(number, "live")
    };
    let rows =
        [deployment(1, "live"), deployment(2, "live"), deployment(1, "try"), ended(1, Outcome::Passed)];
    write(&store, move |tx| rows.iter().try_for_each(|row| tx.put_deployment(row)));
    let view = store.reader().snapshot().unwrap();
    let passed = ended(1, Outcome::Passed);
    assert_eq!(view.deployments(&place("live"), 9).unwrap(), [deployment(2, "live"), passed.clone()]);
    assert_eq!(view.environments(&repo()).unwrap(), ["live".parse().unwrap(), "try".parse().unwrap()]);
    assert_eq!(view.deployment(&place("live"), 2).unwrap(), Some(deployment(2, "live")));
    assert_eq!(view.current_deployment(&place("live")).unwrap(), Some(passed));
    assert_eq!(view.current_deployment(&place("try")).unwrap(), None);
    drop(view);
    let failures: Vec<_> = (2..6).map(|number| ended(number, Outcome::Failed)).collect();
    let gone = write(&store, move |tx| {
        failures.iter().try_for_each(|row| tx.put_deployment(row))?;
        tx.put_deployment(&deployment(6, "live"))?;
        tx.prune_deployments(&place("live"), 2)
    });
    let left = store.reader().snapshot().unwrap().deployments(&place("live"), 9).unwrap();
    let left: Vec<u64> = left.iter().map(|row| row.number).collect();
    assert_eq!((gone, left), (3, vec![6, 5, 1]));
}

#[test]
fn secrets_belong_to_a_repo_or_to_the_server() {
    let (_place, store) = with_repo();
    let secret = |repo| Secret {
        repo,
        name: "key".into(),
        sealed: vec![0, 159, 255],
        policy: "{}".into(),
        updated_by: Some(UserId(1)),
        updated_at: NOW,
    };
    let (of_repo, of_server) = (secret(Some(repo())), secret(None));
    assert!(!format!("{of_repo:?}").contains("159"));
    let rows = [of_repo.clone(), of_server.clone()];
    write(&store, move |tx| rows.iter().try_for_each(|row| tx.put_secret(row)));
    let view = store.reader().snapshot().unwrap();
    assert_eq!(view.secret(Some(&repo()), "key").unwrap(), Some(of_repo));
    assert_eq!(view.secrets(None).unwrap(), [of_server]);
    drop(view);
    write(&store, |tx| tx.remove_secret(None, "key"));
    assert_eq!(store.reader().snapshot().unwrap().secrets(None).unwrap(), []);
    let gone = store.writer().write(|tx| tx.remove_secret(None, "key"));
    assert_eq!(gone, Err(WriteError::Missing { what: "secret `key`".into() }));
}

#[test]
fn a_repeated_webhook_is_recognised_until_it_is_pruned() {
    let place = Place::new();
    let store = place.open();
    let hook = |id: u32| HookDelivery { repo: repo(), id: id.to_string(), at: NOW, body: vec![255; 9] };
    let first = write(&store, move |tx| {
        (1..=1001).map(|id| tx.add_hook_delivery(&hook(id))).collect::<Result<Vec<_>, _>>()
    });
    assert_eq!(first, [true; 1001]);
    assert_eq!(write(&store, |tx| tx.prune_hook_deliveries(2)), 0, "not one by one");
    assert!(write(&store, move |tx| tx.add_hook_delivery(&hook(1002))));
    assert!(!write(&store, move |tx| tx.add_hook_delivery(&hook(2))));
    assert_eq!(write(&store, |tx| tx.prune_hook_deliveries(2)), 1000);
    let kept = store.reader().snapshot().unwrap().hook_deliveries(9).unwrap();
    assert_eq!(kept, [hook(1002), hook(1001)]);
    assert!(write(&store, move |tx| tx.add_hook_delivery(&hook(2))));
}
