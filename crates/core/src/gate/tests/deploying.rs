//! What is deployed after a landing, and landings that wait for it.

use super::*;

#[test]
fn a_failed_deploy_is_no_news_once_there_is_nothing_to_deploy() {
    let mut bench = Bench::new(GateConfig::default());
    bench.play("approvals 0; push 1; pass 1; fail-deploy 2");
    let news = |bench: &Bench| bench.gate.state.alerts(Timestamp(bench.clock)).len();
    assert_eq!((news(&bench), bench.gate.state.failed_deploy().is_some()), (1, true));
    bench.play("no-deploy; push 2; pass 3");
    assert_eq!((news(&bench), bench.gate.state.failed_deploy()), (0, None));
}

#[test]
fn deploys_coalesce_and_alert_once() {
    check_after(
        "approvals 0; push 1; pass 1",
        "push 2; pass 3; push 3; pass 4; fail-deploy 2; pass 5",
        expect![[r#"
            push 2
              run 3: Change of 2 (initial run)
            pass 3
              land 2 -> Landed
              landed 2 with ["unit"]
            push 3
              run 4: Change of 3 (initial run)
            pass 4
              land 3 -> Landed
              landed 3 with ["unit"]
            fail-deploy 2
              run 5: Land of - (landing of 01f7f7f7f7f7)
              alert: run demo/main/2 of landed commit 0180808080808080808080808080808080808080 did not pass: `deploy`
            pass 5
        "#]],
    );
}

#[test]
fn landing_waits_for_the_deploy_where_told_to() {
    let config = GateConfig { wait_for_deploy: true, ..GateConfig::default() };
    check_with(
        config,
        "approvals 0; push 1; pass 1; push 2; pass 3; why 2; fail-deploy 2",
        expect![[r#"
            approvals 0
            push 1
              run 1: Change of 1 (initial run)
            pass 1
              land 1 -> Landed
              landed 1 with ["unit"]
              run 2: Land of - (landing of 018080808080)
            push 2
              run 3: Change of 2 (initial run)
            pass 3
            why 2
              deploy run demo/main/2 is not over
            fail-deploy 2
              alert: run demo/main/2 of landed commit 0180808080808080808080808080808080808080 did not pass: `deploy`
              land 2 -> Landed
              landed 2 with ["unit"]
              run 4: Land of - (landing of 01c9c9c9c9c9)
        "#]],
    );
}

#[test]
fn landing_waits_for_a_deploy_that_has_still_to_begin_unless_a_foreign_push_keeps_it() {
    let config = GateConfig { wait_for_deploy: true, ..GateConfig::default() };
    check_with(
        config.clone(),
        "approvals 0; graphs-hang; push 1; pass 1; push 2; pass 2; why 2; graphs-come; why 2; pass 3",
        expect![[r#"
            approvals 0
            graphs-hang
            push 1
              run 1: Change of 1 (initial run)
            pass 1
              land 1 -> Landed
              landed 1 with ["unit"]
            push 2
              run 2: Change of 2 (initial run)
            pass 2
            why 2
              the deploy run of 018080808080 has not begun
            graphs-come
              run 3: Land of - (landing of 018080808080)
            why 2
              deploy run demo/main/3 is not over
            pass 3
              land 2 -> Landed
              landed 2 with ["unit"]
              run 4: Land of - (landing of 01c9c9c9c9c9)
        "#]],
    );
    check_with(
        config,
        "approvals 0; graphs-hang; push 1; pass 1; foreign; push 2; pass 2",
        expect![[r#"
        approvals 0
        graphs-hang
        push 1
          run 1: Change of 1 (initial run)
        pass 1
          land 1 -> Landed
          landed 1 with ["unit"]
        foreign
          foreign push
          alert: somebody else pushed 01c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8 to demo/main
        push 2
          run 2: Change of 2 (initial run)
        pass 2
          land 2 -> Landed
          landed 2 with ["unit"]
    "#]],
    );
}

#[test]
fn a_failed_deploy_is_no_news_once_each_job_that_failed_has_passed_on_that_commit_or_a_newer_one() {
    let deploys = ["staging", "live", "smoke"].map(|name| job(name, &[Trigger::Land]));
    let mut bench = Bench::new(GateConfig::default());
    bench.play("approvals 0; graphs-hang; push 1; pass 1");
    let landed = commit(bench.tip, 1);
    bench.event(GateEvent::GraphRead { commit: landed, graph: Ok(JobGraph::from(deploys.to_vec())) });
    bench.end(2, &["staging", "live"], Outcome::Failed);
    let deploy = |bench: &mut Bench, name: &str, commit: CommitId, failing: &[&str]| {
        let environment: crate::ids::EnvironmentName = name.parse().unwrap();
        let body = JobBody { environment: Some(environment.clone()), ..JobBody::script("true") };
        let spec = JobSpec { body: Arc::new(body), ..job(name, &[Trigger::Land]) };
        let graph = JobGraph::from(vec![spec]);
        bench.command(MAINTAINER, Verb::DeployTo { environment, commit, tree: TreeId([1; 20]), graph });
        bench.end(bench.gate.state.branch().runs, failing, Outcome::Failed);
        let news = bench.gate.state.alerts(Timestamp(bench.clock)).len();
        (news, bench.gate.state.failed_deploy().map(|(_, run)| run))
    };
    let (failed, mended) = ((1, Some(2)), (0, None));
    // Of an older commit: the branch goes back.
    assert_eq!(deploy(&mut bench, "staging", commit(1, 1), &[]), failed);
    assert_eq!(deploy(&mut bench, "live", landed, &["live"]), failed);
    assert_eq!(deploy(&mut bench, "live", landed, &[]), failed);
    assert_eq!(deploy(&mut bench, "smoke", landed, &[]), failed);
    // The branch has come further.
    bench.play("foreign; accept");
    let tip = commit(bench.tip, 1);
    assert_eq!(deploy(&mut bench, "staging", tip, &[]), mended);
    assert_eq!(bench.log.matches("alert: run").count(), 1, "{}", bench.log);
}

#[test]
fn a_person_deploys_a_landed_commit_to_one_environment() {
    let deploy = |environment: &str, name: &str| {
        let mut spec = job(name, &[Trigger::Land]);
        let environment: crate::ids::EnvironmentName = environment.parse().unwrap();
        let body = JobBody { environment: Some(environment.clone()), ..JobBody::script("true") };
        spec.body = Arc::new(body);
        let graph = JobGraph::from(vec![spec]);
        Verb::DeployTo { environment, commit: commit(1, 1), tree: TreeId([1; 20]), graph }
    };
    let mut bench = Bench::new(GateConfig::default());
    bench.word("approvals 0");
    bench.command(MAINTAINER, deploy("staging", "deploy"));
    bench.command(AUTHOR, deploy("staging", "deploy"));
    let mut other = deploy("staging", "deploy");
    if let Verb::DeployTo { environment, .. } = &mut other {
        *environment = "live".parse().unwrap();
    }
    bench.command(MAINTAINER, other);
    bench.word("freeze");
    bench.command(MAINTAINER, deploy("live", "deploy"));
    bench.word("foreign");
    bench.command(MAINTAINER, deploy("live", "deploy"));
    let by: Vec<String> = bench.runs.values().map(|run| run.by.clone().unwrap().name).collect();
    assert_eq!(by, ["user 1", "user 1"]);
    assert!(bench.runs.values().all(|run| run.level == Level::Landed));
    expect![[r#"
        deployments
          run 1: Manual of - (deployment to staging asked for by user 1)
          answer Ok("deploys 0101010101010101010101010101010101010101 to staging in run demo/main/1")
          answer Err("this takes the role maintainer on `demo`")
          answer Err("the definition at 010101010101 has no job that deploys to `live`")
          answer Ok("froze demo/main: release")
          run 2: Manual of - (deployment to live asked for by user 1)
          answer Ok("deploys 0101010101010101010101010101010101010101 to live in run demo/main/2")
          foreign push
          alert: somebody else pushed 01c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8 to demo/main
          answer Err("no landing put the tip there; an admin who has looked at it can run `towpath branch accept main 01c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8`")
    "#]]
    .assert_eq(&format!("deployments\n{}", bench.log));
}

#[test]
fn the_alert_of_a_run_that_lost_jobs_names_them_and_how_they_are_done_again() {
    let told = |jobs: Vec<JobSpec>, failing: &[&str]| {
        let mut bench = Bench::new(GateConfig::default());
        bench.play("approvals 0; graphs-hang; push 1; pass 1");
        let landed = commit(bench.tip, 1);
        bench.event(GateEvent::GraphRead { commit: landed, graph: Ok(JobGraph::from(jobs)) });
        bench.end(2, failing, Outcome::Failed);
        let mut plan = Plan::default();
        bench.gate.state.owe_alerts(&mut plan);
        let texts = plan.effects.into_values().filter_map(|effect| match effect {
            Effect::Alert { text, .. } => Some(text),
            _ => None,
        });
        let text = texts.collect::<String>();
        let (_, lost) = text.split_once(" did not pass: ").unwrap_or_else(|| panic!("{text}"));
        lost.to_owned()
    };
    let of = |name: &str| job(name, &[Trigger::Land]);
    let live = JobBody { environment: Some("live".parse().unwrap()), ..JobBody::script("true") };
    let ship = || JobSpec { body: Arc::new(live.clone()), needs: vec![JobIndex(0)], ..of("ship") };
    assert_eq!(
        told(vec![of("docs"), ship()], &["docs"]),
        "`docs`, `ship`; `towpath runs main/2` shows it, and `towpath deploy start live --branch main` deploys there again"
    );
    assert_eq!(
        told(vec![of("docs"), of("lint")], &["lint"]),
        "`lint`; `towpath runs main/2` shows it, and `towpath branch run main --job lint` runs that job again"
    );
    let many: Vec<String> = (0..8).map(|number| format!("j{number}")).collect();
    let failing: Vec<&str> = many.iter().map(String::as_str).collect();
    let many = told(failing.iter().map(|name| of(name)).collect(), &failing);
    assert!(many.starts_with("`j0`, `j1`, `j2`, `j3`, `j4` and 3 more; "), "{many}");
}
