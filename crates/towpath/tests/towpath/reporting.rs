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
    let none = served.ok(&["tests", "--history", "nothing"]);
    assert!(none.out.is_empty() && none.err.contains("no reports of this test"), "{}{}", none.out, none.err);
}
