//! The bar, over random pairs of definitions: whatever a change makes of the file, the target's required jobs run with
//! their whole body and all that they need, nothing that the change made reaches them, and its own set counts too.

use std::collections::BTreeSet;

use proptest::prelude::*;
use towpath_core::graph::{JobGraph, JobIndex, JobSpec, Origin, Trigger};
use towpath_pipeline::{Changed, plan};

use crate::support::file;

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// A job of a random definition; it needs only jobs that come before it.
#[derive(Debug, Clone)]
struct Line {
    there: bool,
    run: &'static str,
    on: Vec<&'static str>,
    required: bool,
    needs: Vec<bool>,
    shards: u32,
    filtered: bool,
}

fn line() -> impl Strategy<Value = Line> {
    let on = prop::sample::subsequence(vec!["change", "queue", "land", "manual"], 0..=4);
    let needs = prop::collection::vec(prop::bool::weighted(0.3), NAMES.len());
    let run = prop::sample::select(vec!["x", "y"]);
    (prop::bool::weighted(0.8), run, on, any::<bool>(), needs, 1..3u32, prop::bool::weighted(0.2)).prop_map(
        |(there, run, on, required, needs, shards, filtered)| Line {
            there,
            run,
            on,
            required,
            needs,
            shards,
            filtered,
        },
    )
}

fn definition() -> impl Strategy<Value = String> {
    prop::collection::vec(line(), NAMES.len()).prop_map(|lines| {
        let mut yaml = "jobs:\n  z: { run: z, on: [] }\n".to_owned();
        for (at, line) in lines.iter().enumerate().filter(|(_, line)| line.there) {
            let needs: Vec<&str> = (0..at)
                .filter(|need| lines[*need].there && line.needs[*need])
                .map(|need| NAMES[need])
                .collect();
            let Line { run, on, required, shards, .. } = line;
            let required = if on.contains(&"queue") && !required { ", required: false" } else { "" };
            let when = if line.filtered { ", when: { paths: [elsewhere] }" } else { "" };
            yaml.push_str(&format!(
                "  {}: {{ run: {run}, on: [{}], needs: [{}], shards: {shards}{required}{when} }}\n",
                NAMES[at],
                on.join(", "),
                needs.join(", ")
            ));
        }
        yaml
    })
}

/// What a job does and all that it needs, as text.
fn whole(graph: &JobGraph, job: &JobSpec) -> String {
    let needs: BTreeSet<String> = job.needs.iter().map(|need| whole(graph, graph.job(*need))).collect();
    let name = job.name.as_str().replace("@target", "");
    format!("{name}={:?}({})", job.body, needs.into_iter().collect::<Vec<_>>().join(","))
}

fn required(graph: &JobGraph) -> Vec<String> {
    let required = graph.jobs.iter().filter(|job| job.required);
    required.map(|job| whole(graph, job)).collect()
}

fn index(graph: &JobGraph, name: &str) -> Option<JobIndex> {
    graph.iter().find(|(_, job)| job.name.as_str() == name).map(|(index, _)| index)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn a_change_cannot_lower_its_own_bar(target in definition(), own in definition()) {
        let (target, own) = (file(&target), file(&own));
        let planned = plan(&target, &own, Changed::Unknown).unwrap().graph;
        let queue = planned.select(Trigger::Queue);
        let of_target: BTreeSet<String> = queue
            .jobs
            .iter()
            .filter(|job| job.required && job.origin == Origin::Target && job.skip.is_none())
            .map(|job| whole(&queue, job))
            .collect();
        for bar in required(&target.definition.unwrap().expand(Changed::Unknown)) {
            prop_assert!(of_target.contains(&bar), "the target's {bar} is not among {of_target:#?}");
        }
        let all: BTreeSet<String> = required(&queue).into_iter().collect();
        for bar in required(&own.definition.unwrap().expand(Changed::Unknown)) {
            prop_assert!(all.contains(&bar), "the change's {bar} is not among {all:#?}");
        }
    }

    #[test]
    fn what_a_change_makes_reaches_no_required_job_of_the_target(target in definition(), own in definition()) {
        let planned = plan(&file(&target), &file(&own), Changed::Unknown).unwrap().graph;
        let names: BTreeSet<&str> = planned.jobs.iter().map(|job| job.name.as_str()).collect();
        prop_assert_eq!(names.len(), planned.jobs.len(), "names are unique");
        for (at, job) in planned.iter() {
            prop_assert!(job.needs.iter().all(|need| *need < at), "{} comes after what it needs", job.name);
            let of_own = job.needs.iter().find(|need| planned.job(**need).origin == Origin::Own);
            prop_assert!(job.origin == Origin::Own || of_own.is_none(), "{} reads what the change made", job.name);
        }
    }

    #[test]
    fn after_landing_the_new_definition_alone_starts_jobs(target in definition(), own in definition()) {
        let own = file(&own);
        let planned = plan(&file(&target), &own, Changed::Unknown).unwrap().graph;
        let alone = own.definition.unwrap().expand(Changed::Unknown);
        for trigger in [Trigger::Land, Trigger::Manual] {
            let names = |graph: &JobGraph| -> BTreeSet<String> {
                graph.select(trigger).jobs.iter().map(|job| job.name.to_string()).collect()
            };
            prop_assert_eq!(names(&planned), names(&alone));
        }
        for job in alone.jobs.iter() {
            prop_assert!(index(&planned, job.name.as_str()).is_some(), "{} is there", job.name);
        }
    }
}
