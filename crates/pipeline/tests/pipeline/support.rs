//! Definitions and graphs as text.

use expect_test::Expect;
use towpath_core::graph::{JobGraph, JobIndex, JobSpec, Origin, Trigger};
use towpath_pipeline::{Definition, DefinitionFile, Diagnostic, FILE_NAME, Severity, TreeEntry};

pub fn parse(yaml: &str) -> Definition {
    Definition::parse(FILE_NAME, yaml.as_bytes()).unwrap_or_else(|errors| panic!("{}", errors.render()))
}

/// Everything that is found, or `ok`.
pub fn check(yaml: &str, expected: Expect) {
    expected.assert_eq(&findings(yaml));
}

pub fn findings(yaml: &str) -> String {
    let (items, left_off) = match Definition::parse(FILE_NAME, yaml.as_bytes()) {
        Ok(definition) => (definition.warnings, 0),
        Err(errors) => (errors.items, errors.left_off),
    };
    let mut text: String = items.iter().map(finding).collect();
    if left_off > 0 {
        text.push_str(&format!("and {left_off} more\n"));
    }
    if text.is_empty() { "ok\n".to_owned() } else { text }
}

fn finding(item: &Diagnostic) -> String {
    let Diagnostic { line, column, message, why, hint, .. } = item;
    let severity = if item.severity == Severity::Warning { "warning: " } else { "" };
    let why = wrapped(why, 9);
    let hint = wrapped(hint, 9);
    format!("{line}:{column} {severity}{message}\n    why: {why}\n   hint: {hint}\n")
}

/// Long texts over several lines, so that they can be read here.
pub fn wrapped(text: &str, indent: usize) -> String {
    let (mut lines, mut width) = (String::new(), 0);
    for word in text.split(' ') {
        if width + word.len() > 110 {
            lines.push_str(&format!("\n{}", " ".repeat(indent)));
            width = 0;
        } else if width > 0 {
            lines.push(' ');
        }
        lines.push_str(word);
        width += word.len() + 1;
    }
    lines
}

pub fn file(yaml: &str) -> DefinitionFile {
    DefinitionFile::read(TreeEntry::Present { mode: 0o100_644, bytes: yaml.as_bytes() })
}

/// One line for each job.
pub fn graph_text(graph: &JobGraph) -> String {
    graph.jobs.iter().map(|job| job_text(graph, job)).collect()
}

fn job_text(graph: &JobGraph, job: &JobSpec) -> String {
    let names = |indices: &[JobIndex]| -> Vec<String> {
        indices.iter().map(|index| graph.job(*index).name.to_string()).collect()
    };
    let mut text = format!("{}: {}", job.name, job.body.run.trim().replace('\n', "; "));
    let on: Vec<&str> = job.on.iter().map(|on| trigger(*on)).collect();
    text.push_str(&format!(" | on {}", on.join(",")));
    if job.required {
        text.push_str(" | required");
    }
    if job.origin == Origin::Own {
        text.push_str(" | own");
    }
    if !job.needs.is_empty() {
        text.push_str(&format!(" | needs {}", names(&job.needs).join(" ")));
    }
    if !job.aborts.is_empty() {
        text.push_str(&format!(" | aborts {}", names(&job.aborts).join(" ")));
    }
    if job.skip.is_some() {
        text.push_str(" | skipped");
    }
    text + "\n"
}

fn trigger(trigger: Trigger) -> &'static str {
    match trigger {
        Trigger::Change => "change",
        Trigger::Queue => "queue",
        Trigger::Land => "land",
        Trigger::Manual => "manual",
        Trigger::Schedule => "schedule",
        Trigger::Release => "release",
    }
}
