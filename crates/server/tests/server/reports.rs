//! What jobs report of their tests: shown, kept, and told of where it cannot be read.

use serde_json::{Value, json};
use towpath_server::housekeeping::Retention;

use crate::client::Ask;
use crate::keeping::{aged, keep};
use crate::world::World;

const REPORT: &str = "<testsuite name='s'><testcase name='slow' time='1.5'/><testcase name='quick' time='0.1'/>\
    <testcase name='bad' time='0.2'><failure>boom &lt;b&gt;</failure></testcase></testsuite>\n";

/// A world whose jobs reported: a job with a report, one whose report is none, and one that made none.
fn reported() -> World {
    let report = REPORT.replace('\'', "\"");
    let pipeline = format!(
        "jobs:\n  good:\n    run: |\n      echo '{}' > r.xml\n    reports: {{ junit: r.xml }}\n  \
         broken: {{ run: 'echo \"<broken\" > r.xml', reports: {{ junit: r.xml }} }}\n  \
         none: {{ run: 'true', reports: {{ junit: none.xml }} }}\n",
        report.trim()
    );
    let world = World::with_pipeline(&pipeline);
    world.until(|world| {
        let run = world.ada(Ask::get("/api/v1/repos/demo/runs/main/1"));
        run.status == 200 && !run.json()["outcome"].is_null()
    });
    world
}

fn of_job(world: &World, job: &str, rest: &str) -> Value {
    world.by("rae", Ask::get(&format!("/api/v1/repos/demo/runs/main/1/jobs/{job}/{rest}"))).ok()
}

#[test]
fn tests_are_shown_with_what_they_said_and_how_long_they_took() {
    let world = reported();
    let all = of_job(&world, "good", "tests");
    let counts = ["passed", "failed", "skipped"].map(|key| all[key].as_u64().unwrap());
    assert_eq!(counts, [2, 1, 0], "{all}");
    let names = |tests: &Value| {
        let tests = tests["tests"].as_array().unwrap().iter();
        tests.map(|test| test["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&all), ["s::bad", "s::slow", "s::quick"]);
    let bad = &all["tests"][0];
    assert_eq!((&bad["outcome"], &bad["duration_ms"]), (&json!("failed"), &json!(200)));
    assert!(bad["message"].as_str().unwrap().contains("boom <b>"), "{bad}");
    assert_eq!(names(&of_job(&world, "good", "tests?failed=true")), ["s::bad"]);
    assert_eq!(names(&of_job(&world, "good", "tests?skip=1&count=1")), ["s::slow"]);
    assert_eq!(names(&of_job(&world, "none", "tests")), Vec::<String>::new());
    let history = world.by("rae", Ask::get("/api/v1/repos/demo/tests?name=s::bad")).ok();
    assert_eq!((&history[0]["run"], &history[0]["outcome"]), (&json!("demo/main/1"), &json!("failed")));
    assert_eq!(history[0]["job_name"], "good");
    assert_eq!(world.by("stranger", Ask::get("/api/v1/repos/demo/tests?name=s::bad")).status, 404);
    let page = Ask::get("/demo/runs/main/1/jobs/good").header("cookie", &world.log_in("rae"));
    let page = String::from_utf8(world.send(&page).body).unwrap();
    for shown in ["1 failed, 2 passed, 0 skipped", "s::slow", "boom &lt;b&gt;", "1.5 s"] {
        assert!(page.contains(shown), "no {shown} in {page}");
    }
}

#[test]
fn a_report_is_kept_whole_with_what_its_job_left() {
    let world = reported();
    let retention = Retention { grace_days: 1, ..Retention::default() };
    world.shared.store.writer().write(move |tx| retention.write(tx)).unwrap();
    let blobs = world.folder.path().join("data/executor/blobs/sha256");
    for folder in std::fs::read_dir(blobs).unwrap() {
        for blob in std::fs::read_dir(folder.unwrap().path()).unwrap() {
            aged(&blob.unwrap().path(), 9);
        }
    }
    keep(&world);
    let left = of_job(&world, "good", "artifacts");
    assert_eq!((&left[0]["output"], &left[0]["path"]), (&json!("reports:junit"), &json!("r.xml")), "{left}");
    let file = "/api/v1/repos/demo/runs/main/1/jobs/good/artifacts/reports:junit/r.xml";
    let whole = world.by("rae", Ask::get(file));
    assert_eq!(String::from_utf8(whole.body).unwrap(), REPORT.replace('\'', "\""));
}

#[test]
fn a_report_that_is_none_or_not_there_is_told_of_and_decides_nothing() {
    let world = reported();
    let run = world.ada(Ask::get("/api/v1/repos/demo/runs/main/1")).ok();
    let why = |name: &str| {
        let jobs = run["jobs"].as_array().unwrap();
        let job = jobs.iter().find(|job| job["name"] == name).unwrap();
        assert_eq!(job["outcome"], "passed", "{job}");
        job["why"].as_str().unwrap().to_owned()
    };
    assert_eq!(why("good"), "exit code 0");
    assert!(why("broken").starts_with("exit code 0; JUnit report `r.xml`: it is not "), "{}", why("broken"));
    assert_eq!(why("none"), "exit code 0; report `junit`: nothing matches `none.xml`");
    let page = Ask::get("/demo/runs/main/1").header("cookie", &world.log_in("rae"));
    let page = String::from_utf8(world.send(&page).body).unwrap();
    let shown = "<p class=\"why\">report <code>junit</code>: nothing matches <code>none.xml</code></p>";
    assert!(page.contains(shown) && !page.contains("exit code 0"), "{page}");
}
