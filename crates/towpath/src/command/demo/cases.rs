//! The changes of the demo: who pushes what, and what the gate should make of it.

use serde::Serialize;

/// What became of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is on main.
    Landed,
    /// It was tested and cannot land as it is.
    Ejected,
    /// A person has to act first.
    Waiting,
    /// Nothing of it runs.
    Ignored,
}

/// Who pushes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// Maintainer.
    Ann,
    /// Authorised author.
    Ben,
    /// Has an account, and nothing more.
    Eve,
}

/// What the table says of a case beside its outcome, to be shown from the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// A run on the very commit that landed has passed.
    LandedAsTested,
    /// It passed on top of what main was at before any of the changes.
    GreenAlone,
    /// No run was made for it.
    NothingRuns,
    /// It landed before all that were pushed before it.
    LandsFirst,
    /// What main requires was run, and failed.
    MainsTestsFail,
    /// A job failed and then passed, and is marked flaky.
    TriedAgain,
}

/// One change.
#[derive(Debug)]
pub struct Case {
    /// Its name in the table; also the branch that is pushed.
    pub name: &'static str,
    /// Who pushes it.
    pub who: Who,
    /// The commit's subject.
    pub subject: &'static str,
    /// Files that it writes: path and content.
    pub files: &'static [(&'static str, &'static str)],
    /// Push options beside `change`.
    pub options: &'static [&'static str],
    /// What should become of it.
    pub expected: Outcome,
    /// What the table says about it beside the gate's own reason.
    pub note: &'static str,
    /// What of that the record has to bear out.
    pub claims: &'static [Claim],
}

/// The jobs of main's definition: all of them are required.
pub const REQUIRED: [&str; 2] = ["unit", "timing"];

/// What the project is before the first change.
pub const START: &[(&str, &str)] = &[
    (
        "towpath.yaml",
        "gate: { approvals: 0 }\n\
         jobs:\n\
         \x20 unit:\n\
         \x20   run: sh tests/run.sh\n\
         \x20   timeout: 1m\n\
         \x20 timing:\n\
         \x20   run: sh tests/timing.sh\n\
         \x20   timeout: 1m\n\
         \x20   retry: { failed: 2 }\n",
    ),
    ("lib/greet.sh", "greet() { echo \"hello $1\"; }\n"),
    ("lib/motd.txt", "welcome aboard\n"),
    ("bin/hello.sh", "#!/bin/sh\n. lib/greet.sh\ngreet \"${1:-world}\"\n"),
    (
        "tests/run.sh",
        "set -e\nfor test in tests/test_*.sh; do\n  sh \"$test\" || { echo \"error: $test failed\"; exit 1; }\n  echo \"ok $test\"\ndone\n",
    ),
    ("tests/test_hello.sh", "test \"$(sh bin/hello.sh reader)\" = 'hello reader'\n"),
    ("tests/timing.sh", "echo 'steady'\n"),
];

/// Every case, in the order in which they are pushed.
pub const CASES: &[Case] = &[
    Case {
        name: "passes",
        who: Who::Ben,
        subject: "Say goodbye, too",
        files: &[
            ("bin/bye.sh", "#!/bin/sh\necho \"bye $1\"\n"),
            ("tests/test_bye.sh", "test \"$(sh bin/bye.sh you)\" = 'bye you'\n"),
        ],
        options: &[],
        expected: Outcome::Landed,
        note: "the commit that was tested is the commit that landed",
        claims: &[Claim::LandedAsTested],
    },
    Case {
        name: "fails-a-test",
        who: Who::Ben,
        subject: "Greet in capitals",
        files: &[("lib/greet.sh", "greet() { echo \"HELLO $1\"; }\n")],
        options: &[],
        expected: Outcome::Ejected,
        note: "its author sees the failing test",
        claims: &[],
    },
    Case {
        name: "first-to-edit",
        who: Who::Ben,
        subject: "A longer welcome",
        files: &[("lib/motd.txt", "welcome aboard, mind the lock\n")],
        options: &[],
        expected: Outcome::Landed,
        note: "",
        claims: &[],
    },
    Case {
        name: "in-conflict",
        who: Who::Ann,
        subject: "A shorter welcome",
        files: &[("lib/motd.txt", "welcome\n")],
        options: &[],
        expected: Outcome::Ejected,
        note: "edits the line that `first-to-edit` edits",
        claims: &[],
    },
    Case {
        name: "skew-rename",
        who: Who::Ben,
        subject: "Rename greet to salute",
        files: &[
            ("lib/greet.sh", "salute() { echo \"hello $1\"; }\n"),
            ("bin/hello.sh", "#!/bin/sh\n. lib/greet.sh\nsalute \"${1:-world}\"\n"),
        ],
        options: &[],
        expected: Outcome::Landed,
        note: "green alone",
        claims: &[Claim::GreenAlone],
    },
    Case {
        name: "skew-caller",
        who: Who::Ann,
        subject: "Greet the whole crew",
        files: &[
            ("bin/crew.sh", "#!/bin/sh\n. lib/greet.sh\nfor name in bow stern; do greet $name; done\n"),
            ("tests/test_crew.sh", "test \"$(sh bin/crew.sh | wc -l)\" -eq 2\n"),
        ],
        options: &[],
        expected: Outcome::Ejected,
        note: "each green alone; without a queue main would be red",
        claims: &[Claim::GreenAlone],
    },
    Case {
        name: "draft",
        who: Who::Ben,
        subject: "An idea, not ready",
        files: &[("lib/idea.txt", "later\n")],
        options: &["draft"],
        expected: Outcome::Ignored,
        note: "nothing runs",
        claims: &[Claim::NothingRuns],
    },
    Case {
        name: "not-authorised",
        who: Who::Eve,
        subject: "Let me in",
        files: &[("bin/eve.sh", "#!/bin/sh\necho eve was here\n")],
        options: &[],
        expected: Outcome::Ignored,
        note: "nothing runs until a maintainer vouches for exactly this commit",
        claims: &[Claim::NothingRuns],
    },
    Case {
        name: "work-in-progress",
        who: Who::Ben,
        subject: "Half of a bridge",
        files: &[("lib/bridge.txt", "half\n")],
        options: &["label=WIP"],
        expected: Outcome::Waiting,
        note: "is tested, does not land",
        claims: &[Claim::GreenAlone],
    },
    Case {
        name: "urgent",
        who: Who::Ann,
        subject: "Close the sluice",
        files: &[("lib/sluice.txt", "closed\n")],
        options: &["label=prio:high"],
        expected: Outcome::Landed,
        note: "pushed late, landed first",
        claims: &[Claim::LandsFirst],
    },
    Case {
        name: "skips-the-tests",
        who: Who::Ben,
        subject: "Make the tests faster",
        files: &[
            (
                "towpath.yaml",
                "gate: { approvals: 0 }\njobs:\n  unit: { run: \"true\" }\n  timing: { run: \"true\" }\n",
            ),
            ("tests/test_hello.sh", "exit 1\n"),
        ],
        options: &[],
        expected: Outcome::Ejected,
        note: "edits the pipeline to skip the tests: main's own definition is run all the same",
        claims: &[Claim::MainsTestsFail],
    },
    Case {
        name: "flaky",
        who: Who::Ben,
        subject: "Measure the current",
        files: &[("tests/timing.sh", "echo \"attempt $TOWPATH_ATTEMPT\"\ntest \"$TOWPATH_ATTEMPT\" -gt 1\n")],
        options: &[],
        expected: Outcome::Landed,
        note: "failed, then passed when tried again as the definition allows; marked flaky",
        claims: &[Claim::TriedAgain],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_required_is_every_job_of_the_definition() {
        let (_, definition) = START[0];
        let jobs = definition.lines().skip_while(|line| *line != "jobs:").skip(1);
        let names = jobs.filter_map(|line| {
            line.strip_prefix("  ")?.strip_suffix(':').filter(|name| !name.starts_with(' '))
        });
        assert_eq!(names.collect::<Vec<_>>(), REQUIRED);
    }
}
