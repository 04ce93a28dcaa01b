//! Test reports in the dialects that are met, and in shapes that are meant to hurt.

use expect_test::{Expect, expect};
use proptest::prelude::*;
use towpath_pipeline::junit::{JUNIT_BYTES_MAX, JUNIT_CASES_MAX, ReportFault, TestOutcome, TestReport};

fn check(xml: &str, expected: Expect) {
    let report = TestReport::parse(xml.as_bytes());
    let mut text = String::new();
    for case in &report.cases {
        let outcome = match case.outcome {
            TestOutcome::Passed if case.flaky => "flaky",
            TestOutcome::Passed => "passed",
            TestOutcome::Skipped => "skipped",
            TestOutcome::Failed => "failed",
        };
        let suite = if case.suite.is_empty() { "(no suite)" } else { &case.suite };
        text.push_str(&format!("{suite} > {}: {outcome} in {} ms\n", case.name, case.duration_ms));
        for line in case.message.iter().flat_map(|message| message.lines()) {
            text.push_str(&format!("  | {line}\n"));
        }
    }
    if let Some(fault) = &report.incomplete {
        text.push_str(&format!("incomplete: {fault}\n"));
    }
    expected.assert_eq(&text);
}

#[test]
fn pytest() {
    check(
        r#"<?xml version="1.0" encoding="utf-8"?><testsuites name="pytest tests"><testsuite name="pytest" errors="1" failures="1" skipped="2" tests="5" time="0.041" timestamp="2026-11-21T10:00:00.1+00:00" hostname="h"><properties><property name="a" value="b" /></properties><testcase classname="tests.test_a" name="test_ok[1-a&gt;b]" time="0.001" /><testcase classname="tests.test_a.TestB" name="test_bad" time="0.002"><failure message="assert 1 == 2&#10; +  where 1 = f()">def test_bad():
&gt;       assert 1 == 2
E       assert 1 == 2
E        +  where 1 = f()

tests/test_a.py:5: AssertionError</failure><system-out>captured, not told</system-out></testcase><testcase classname="tests.test_a" name="test_setup" time="0.000"><error message="failed on setup with &quot;RuntimeError: x&quot;">E   RuntimeError: x</error></testcase><testcase classname="tests.test_a" name="test_skip" time="0.000"><skipped type="pytest.skip" message="no network">/w/tests/test_a.py:9: no network</skipped></testcase><testcase classname="tests.test_a" name="test_xfail" time="0.000"><skipped type="pytest.xfail" message="" /></testcase></testsuite></testsuites>"#,
        expect![[r#"
            tests.test_a > test_ok[1-a>b]: passed in 1 ms
            tests.test_a.TestB > test_bad: failed in 2 ms
              | assert 1 == 2
              |  +  where 1 = f()
              | def test_bad():
              | >       assert 1 == 2
              | E       assert 1 == 2
              | E        +  where 1 = f()
              | 
              | tests/test_a.py:5: AssertionError
            tests.test_a > test_setup: failed in 0 ms
              | failed on setup with "RuntimeError: x"
              | E   RuntimeError: x
            tests.test_a > test_skip: skipped in 0 ms
              | no network
              | /w/tests/test_a.py:9: no network
            tests.test_a > test_xfail: skipped in 0 ms
        "#]],
    );
}

#[test]
fn nextest() {
    check(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="nextest-run" tests="3" failures="1" errors="0" uuid="45c50042-482e-477e-88a2-60cfcc3eaf95" timestamp="2026-11-21T10:00:00.000+00:00" time="0.023">
    <testsuite name="towpath-core::core" tests="3" disabled="0" errors="0" failures="1">
        <testcase name="gate::lands" classname="towpath-core::core" timestamp="2026-11-21T10:00:00.000+00:00" time="0.004">
        </testcase>
        <testcase name="gate::fails" classname="towpath-core::core" timestamp="2026-11-21T10:00:00.000+00:00" time="0.004">
            <failure message="thread &apos;gate::fails&apos; panicked at src/gate.rs:12:9" type="test failure with exit code 101">thread &apos;gate::fails&apos; panicked at src/gate.rs:12:9:
assertion failed</failure>
            <rerunFailure timestamp="2026-11-21T10:00:00.000+00:00" time="0.004" message="again" type="test failure with exit code 101">again</rerunFailure>
            <system-out>running 1 test</system-out>
            <system-err>noise</system-err>
        </testcase>
        <testcase name="gate::flaky" classname="towpath-core::core" timestamp="2026-11-21T10:00:00.000+00:00" time="1.5">
            <flakyFailure timestamp="2026-11-21T10:00:00.000+00:00" time="0.004" message="first try" type="test failure"><![CDATA[first <try>]]><system-out>noise</system-out></flakyFailure>
        </testcase>
    </testsuite>
</testsuites>
"#,
        expect![[r#"
            towpath-core::core > gate::lands: passed in 4 ms
            towpath-core::core > gate::fails: failed in 4 ms
              | thread 'gate::fails' panicked at src/gate.rs:12:9:
              | assertion failed
            towpath-core::core > gate::flaky: flaky in 1500 ms
              | first try
              | first <try>
        "#]],
    );
}

#[test]
fn jest() {
    check(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="jest tests" tests="3" failures="1" errors="0" time="1.078">
  <testsuite name="sum" errors="0" failures="1" skipped="1" timestamp="2026-11-21T10:00:00" time="0.345" tests="3">
    <testcase classname="sum adds" name="sum adds" time="0.003">
    </testcase>
    <testcase classname="" name="sum fails" time="1,002.5">
      <failure>Error: expect(received).toBe(expected) // Object.is equality
&#x1b;[32mExpected: 3&#x1b;[39m
    at Object.&lt;anonymous&gt; (sum.test.js:8:19)</failure>
    </testcase>
    <testcase classname="sum todo" name="sum todo" time="0">
      <skipped/>
    </testcase>
  </testsuite>
</testsuites>
"#,
        expect![[r#"
            sum adds > sum adds: passed in 3 ms
            sum > sum fails: failed in 1002500 ms
              | Error: expect(received).toBe(expected) // Object.is equality
              | ?[32mExpected: 3?[39m
              |     at Object.<anonymous> (sum.test.js:8:19)
            sum todo > sum todo: skipped in 0 ms
        "#]],
    );
}

#[test]
fn googletest() {
    check(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuites tests="4" failures="1" disabled="1" errors="0" time="0.01" timestamp="2026-11-21T10:00:00.000" name="AllTests">
  <testsuite name="Math" tests="4" failures="1" disabled="1" skipped="1" errors="0" time="0.01" timestamp="2026-11-21T10:00:00.000">
    <testcase name="Adds" file="m.cc" line="3" status="run" result="completed" time="0." timestamp="2026-11-21T10:00:00.000" classname="Math" />
    <testcase name="Fails/0" value_param="1" file="m.cc" line="8" status="run" result="completed" time="0.002" timestamp="2026-11-21T10:00:00.000" classname="Math">
      <failure message="m.cc:9&#x0A;Expected: 1&#x0A;Which is: 2" type=""><![CDATA[m.cc:9
Expected: 1
Which is: 2]]></failure>
      <failure message="m.cc:10&#x0A;second" type=""><![CDATA[m.cc:10
second]]></failure>
    </testcase>
    <testcase name="DISABLED_Off" file="m.cc" line="12" status="notrun" result="suppressed" time="0" classname="Math" />
    <testcase name="Skips" file="m.cc" line="15" status="run" result="skipped" time="0" classname="Math">
      <skipped message="m.cc:16&#x0A;"><![CDATA[m.cc:16
]]></skipped>
    </testcase>
  </testsuite>
</testsuites>
"#,
        expect![[r#"
            Math > Adds: passed in 0 ms
            Math > Fails/0: failed in 2 ms
              | m.cc:9
              | Expected: 1
              | Which is: 2
              | m.cc:10
              | second
            Math > DISABLED_Off: skipped in 0 ms
            Math > Skips: skipped in 0 ms
              | m.cc:16
        "#]],
    );
}

#[test]
fn suites_inside_suites_and_names_left_out() {
    check(
        r#"<testsuite name="outer"><testsuite name="inner"><testcase name="a"/></testsuite><testsuite><testcase time="x"/><testcase name="b" time="-1"/></testsuite></testsuite>"#,
        expect![[r#"
            inner > a: passed in 0 ms
            outer > (unnamed): passed in 0 ms
            outer > b: passed in 0 ms
        "#]],
    );
}

#[test]
fn what_was_read_before_the_end_counts() {
    check(
        r#"<testsuite><testcase name="a"/><testcase name="b"><failure>half a"#,
        expect![[r#"
            (no suite) > a: passed in 0 ms
            incomplete: it is not well-formed XML at byte 65: it ends too early
        "#]],
    );
    check(
        r#"<testsuite><testcase name="a"/></testsuites>"#,
        expect![[r#"
            (no suite) > a: passed in 0 ms
            incomplete: it is not well-formed XML at byte 31: ill-formed document: expected `</testsuite>`, but `</testsuites>` was found
        "#]],
    );
    check(
        r#"<testsuite><testcase name="a & b &nope; c"/><testcase name="d"><failure>x & y &nope; &#65; &#xD800;</failure></testcase></testsuite>"#,
        expect![[r#"
            (no suite) > a & b &nope; c: passed in 0 ms
            (no suite) > d: failed in 0 ms
              | x & y &nope; A &#xD800;
        "#]],
    );
}

#[test]
fn other_files_are_told_apart() {
    check(
        "",
        expect![[r#"
        incomplete: it is not well-formed XML at byte 0: it ends too early
    "#]],
    );
    check(
        "not xml",
        expect![[r#"
        incomplete: it is not well-formed XML at byte 7: it ends too early
    "#]],
    );
    check(
        "<?xml version=\"1.0\"?>\n",
        expect![[r#"
        incomplete: it is not well-formed XML at byte 22: it ends too early
    "#]],
    );
    check(
        "<coverage><testcase name=\"a\"/></coverage>",
        expect![[r#"
        incomplete: it is not a JUnit report: its root is `coverage`, and a report's is `testsuites` or `testsuite`
    "#]],
    );
    check("<testsuites/>", expect![[""]]);
    let report = TestReport::parse(b"\xff\xfe<\0t\0");
    assert!(report.cases.is_empty() && report.incomplete.is_some());
}

#[test]
fn names_in_other_encodings_are_kept_as_far_as_they_go() {
    let report = TestReport::parse(
        b"<?xml version=\"1.0\" encoding=\"ISO-8859-1\"?><testsuite><testcase name=\"caf\xe9\"/></testsuite>",
    );
    assert_eq!(report.cases[0].name, "caf\u{fffd}");
}

#[test]
fn entities_are_not_expanded() {
    check(
        r#"<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;"><!ENTITY f SYSTEM "file:///etc/passwd">]><testsuite><testcase name="&b;&f;"><failure>&b;&f;</failure></testcase></testsuite>"#,
        expect![[r#"
            (no suite) > &b;&f;: failed in 0 ms
              | &b;&f;
        "#]],
    );
}

#[test]
fn reports_are_bounded() {
    let many = format!("<testsuite>{}</testsuite>", "<testcase name=\"a\"/>".repeat(JUNIT_CASES_MAX + 1));
    let report = TestReport::parse(many.as_bytes());
    assert_eq!((report.cases.len(), report.incomplete), (JUNIT_CASES_MAX, Some(ReportFault::TooMany)));

    let deep = format!("<testsuite><testcase name=\"a\"/>{}", "<testsuite>".repeat(100_000));
    let report = TestReport::parse(deep.as_bytes());
    assert_eq!((report.cases.len(), report.incomplete), (1, Some(ReportFault::TooDeep)));

    let large = format!("<testsuite><testcase name=\"a\"/>{}", " ".repeat(JUNIT_BYTES_MAX));
    let report = TestReport::parse(large.as_bytes());
    assert_eq!((report.cases.len(), report.incomplete), (1, Some(ReportFault::TooLarge)));

    let (long, attributes) = ("ü".repeat(10_000), "a='1' ".repeat(100_000));
    let wide = format!(
        "<testsuite><testcase name='{long}' {attributes}><failure>{long}</failure></testcase></testsuite>"
    );
    let report = TestReport::parse(wide.as_bytes());
    assert!(report.cases[0].name.len() <= 1024 && report.cases[0].message.as_ref().unwrap().len() <= 4096);
}

#[test]
fn i01_control_characters_do_not_pass() {
    let report = TestReport::parse(b"<testsuite><testcase name='a&#27;]52;c'><failure message='&#27;[2J'>b\x1b[0m\rc</failure></testcase></testsuite>");
    let case = &report.cases[0];
    let text = format!("{}{}", case.name, case.message.as_ref().unwrap());
    assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        TestReport::parse(&bytes);
    }

    #[test]
    fn arbitrary_reports_are_answered(pieces in prop::collection::vec(prop::sample::select(vec![
        "<testsuites>", "<testsuite name='s'>", "<testcase name='c' time='1'>", "<testcase/>", "<failure>", "<failure message='m'/>",
        "<skipped/>", "<flakyFailure>", "</failure>", "</testcase>", "</testsuite>", "</testsuites>", "text", "&lt;", "&#1;", "&",
        "<![CDATA[", "]]>", "<!--", "-->", "<!DOCTYPE x>", "<", ">", "'", "ü", "\u{feff}",
    ]), 0..40)) {
        let report = TestReport::parse(pieces.concat().as_bytes());
        prop_assert!(report.cases.iter().all(|case| !case.name.is_empty()));
    }
}
