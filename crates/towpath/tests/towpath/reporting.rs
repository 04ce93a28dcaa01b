//! What jobs report of their tests, at a terminal.

use crate::served::{Served, until_landed};

const PIPELINE: &str =
    "gate: { approvals: 0 }\njobs:\n  unit: { run: 'cp report.xml r.xml', reports: { junit: r.xml } }\n";
const REPORT: &str = r#"<testsuite name="s"><testcase name="slow" time="1.5"/><testcase name="left"><skipped/></testcase>
    <testcase name="bad" time="0.2"><failure message="boom">expected 1</failure></testcase></testsuite>
"#;

#[test]
fn the_tests_of_a_job_are_listed_and_so_is_the_past_of_one() {
    let files = [("towpath.yaml", PIPELINE), ("report.xml", REPORT)];
    let served = Served::with_options(&files, &["--sandbox", "none"], &[]);
    served.push("mine", "new", "x\n");
    until_landed(&served.world, "1");
    let all = served.ok(&["tests", "1"]);
    let place = |text: &str| all.out.find(text).unwrap_or_else(|| panic!("no {text} in {}", all.out));
    assert!(place("s::bad") < place("boom") && place("boom") < place("s::slow"), "{}", all.out);
    assert!(all.out.contains("1.5 s") && all.out.contains("200 ms"), "{}", all.out);
    assert!(all.err.contains("1 failed, 1 passed, 1 skipped"), "{}", all.err);
    let failed = served.ok(&["tests", "1", "unit", "--failed"]);
    assert!(failed.out.contains("s::bad") && !failed.out.contains("s::slow"), "{}", failed.out);
    let record = served.record(&["tests", "1", "unit"]);
    assert_eq!((record["failed"].as_u64(), record["tests"][0]["name"].as_str()), (Some(1), Some("s::bad")));
    let past = served.ok(&["tests", "--history", "s::bad"]);
    assert!(past.out.starts_with("web/main/1  unit  failed"), "{}", past.out);
    // Its name without the suite is another one.
    let none = served.ok(&["tests", "--history", "bad"]);
    let told = "no reports of this test, by its whole name as `towpath tests RUN` shows it";
    assert!(none.out.is_empty() && none.err.contains(told), "{}{}", none.out, none.err);
}

#[test]
fn a_report_that_is_not_there_or_none_is_told_of_wherever_its_job_is_shown() {
    let pipeline = "gate: { approvals: 0 }\njobs:\n  \
        broken: { run: 'echo \"<broken\" > r.xml', reports: { junit: r.xml } }\n  \
        none: { run: 'true', reports: { junit: none.xml } }\n  \
        plain: { run: 'true' }\n  \
        again: { run: 'false', required: false, retry: { failed: 1 } }\n";
    let served = Served::with_options(&[("towpath.yaml", pipeline)], &["--sandbox", "none"], &[]);
    served.push("mine", "new", "x\n");
    until_landed(&served.world, "1");
    let missing = "report `junit`: nothing matches `none.xml`";
    let told = |job: &str| served.ok(&["tests", "1", job]).err;
    assert!(told("none").contains(&format!("no tests: {missing}")), "{}", told("none"));
    assert!(told("broken").contains("no tests: JUnit report `r.xml`: it is not "), "{}", told("broken"));
    assert!(told("plain").contains("no tests: `reports: { junit: FILE }`"), "{}", told("plain"));
    let attempt = served.ok(&["tests", "1", "none", "--attempt", "1"]).err;
    assert!(attempt.contains(missing), "{attempt}");
    let run = served.ok(&["runs", "1"]).out;
    assert!(run.contains(missing) && run.contains("JUnit report") && !run.contains("exit code 0"), "{run}");
    let tried: Vec<&str> = run.lines().filter(|line| line.contains("attempts")).collect();
    assert!(tried.len() == 1 && tried[0].contains("again") && tried[0].contains("2 attempts"), "{run}");
    let here = served.ok(&["run", "--sandbox", "none", "none"]);
    assert!(here.err.contains(missing) && !here.err.contains("exit code"), "{}{}", here.out, here.err);
}
