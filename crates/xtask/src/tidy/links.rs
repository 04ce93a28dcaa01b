//! The rule about links between documents.

use std::collections::{BTreeMap, BTreeSet};

use super::tree::{Finding, Tree};

/// Every relative link in a Markdown file leads to a file or folder, and its anchor to a heading.
pub fn links(tree: &Tree) -> Vec<Finding> {
    let documents = || tree.files.iter().filter(|(path, _)| path.ends_with(".md"));
    let anchors: BTreeMap<&str, BTreeSet<String>> =
        documents().map(|(path, text)| (path.as_str(), anchors(text))).collect();
    let mut findings = Vec::new();
    for (path, text) in documents() {
        for (line, prose) in prose(text) {
            let dead = targets(&prose).into_iter().filter_map(|target| {
                let why = dead_because(tree, &anchors, path, target)?;
                Some(Finding::line(path, line, format!("the link `{target}` {why}")))
            });
            findings.extend(dead);
        }
    }
    findings
}

fn dead_because(
    tree: &Tree,
    anchors: &BTreeMap<&str, BTreeSet<String>>,
    from: &str,
    target: &str,
) -> Option<&'static str> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
    let Some(path) = resolve(from, file) else { return Some("leads out of the repository") };
    let folder = format!("{path}/");
    let exists = path.is_empty()
        || tree.files.contains_key(&path)
        || tree.files.range(folder.clone()..).next().is_some_and(|(found, _)| found.starts_with(&folder));
    if !exists {
        return Some("leads to no file");
    }
    let known = anchors.get(path.as_str()).is_some_and(|known| known.contains(anchor));
    (!anchor.is_empty() && !known).then_some("leads to no heading")
}

/// The path that a link in `from` means, from the root.
fn resolve(from: &str, link: &str) -> Option<String> {
    if link.is_empty() {
        return Some(from.to_owned());
    }
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in link.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// The lines outside fenced code, with numbers from 1, inline code left out.
fn prose(text: &str) -> impl Iterator<Item = (usize, String)> {
    let mut in_fence = false;
    text.lines().enumerate().filter_map(move |(at, line)| {
        let is_fence = line.trim_start().starts_with("```");
        in_fence ^= is_fence;
        let without_code = || line.split('`').step_by(2).collect::<Vec<_>>().join("`");
        (!in_fence && !is_fence).then(|| (at + 1, without_code()))
    })
}

/// The targets of `[text](target)` and `[name]: target`.
fn targets(line: &str) -> Vec<&str> {
    let inline = line.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next());
    let defined =
        line.strip_prefix('[').and_then(|rest| rest.split_once("]: ")).map(|(_, target)| target.trim());
    inline.chain(defined).collect()
}

/// The anchors of a document's headings, as forges make them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    let mut in_fence = false;
    for line in text.lines() {
        in_fence ^= line.starts_with("```");
        let heading = line.trim_start_matches('#');
        if in_fence || heading.len() == line.len() || !heading.starts_with(' ') {
            continue;
        }
        let kept = heading.trim().to_lowercase();
        let kept = kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        let anchor: String = kept.map(|c| if c == ' ' { '-' } else { c }).collect();
        let repeated = (1..).map(|count| format!("{anchor}-{count}"));
        let free = std::iter::once(anchor.clone()).chain(repeated).find(|name| !anchors.contains(name));
        anchors.extend(free);
    }
    anchors
}
