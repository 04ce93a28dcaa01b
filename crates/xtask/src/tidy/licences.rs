//! Rules about libraries from outside: what `cargo deny` checks for licences and duplicates, without installing it.
//! The lists are those of `deny.toml`, so that both give the same answer.

use std::collections::{BTreeMap, BTreeSet};

use super::tree::{Finding, Package, Tree};

/// Every library may be used under a licence that `deny.toml` allows.
pub fn licences(tree: &Tree) -> Vec<Finding> {
    let Some(deny) = tree.toml("deny.toml") else {
        return vec![Finding::file("deny.toml", "it is not there, or is no TOML")];
    };
    let allowed = deny.get("licenses").and_then(|licences| licences.get("allow"));
    let allowed = strings(allowed);
    let allows = |package: &Package, own: &[&str]| {
        let text = package.licence.as_deref().unwrap_or_default();
        Expression::of(text).holds(&|name| allowed.contains(&name) || own.contains(&name))
    };
    let exceptions = deny.get("licenses").and_then(|licences| licences.get("exceptions"));
    let exceptions: BTreeMap<&str, Vec<&str>> = tables(exceptions)
        .filter_map(|entry| Some((entry.get("crate")?.as_str()?, strings(entry.get("allow")))))
        .collect();
    let own = |package: &Package| exceptions.get(package.name.as_str()).cloned().unwrap_or_default();
    let refused = tree.packages.iter().filter(|package| !allows(package, &own(package)));
    let finding = |package: &Package| {
        let licence = package.licence.as_deref().unwrap_or("no licence");
        let what = format!("{} {} has {licence}, which is not allowed", package.name, package.version);
        Finding::file("deny.toml", what)
    };
    refused.map(finding).collect()
}

/// Two versions of a library are two times its compile time and its bugs: each pair has a reason.
pub fn duplicates(tree: &Tree) -> Vec<Finding> {
    let deny = tree.toml("deny.toml").unwrap_or_default();
    let skips: BTreeMap<&str, bool> = tables(deny.get("bans").and_then(|bans| bans.get("skip")))
        .filter_map(|entry| Some((entry.get("crate")?.as_str()?, entry.contains_key("reason"))))
        .collect();
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut present = BTreeSet::new();
    for Package { name, version, .. } in &tree.packages {
        let exact = format!("{name}@{version}");
        if !skips.contains_key(exact.as_str()) {
            versions.entry(name).or_default().insert(version);
        }
        present.insert(exact);
    }
    let twice = versions.iter().filter(|(_, versions)| versions.len() > 1).map(|(name, versions)| {
        let list = versions.iter().copied().collect::<Vec<_>>().join(", ");
        format!(
            "{name} is there as {list}: unify them, or add `crate = \"{name}@…\"` with a reason to bans.skip"
        )
    });
    let bare = skips.iter().filter(|(_, has_reason)| !**has_reason);
    let bare = bare.map(|(name, _)| format!("bans.skip has {name} without a reason"));
    let stale = skips.keys().filter(|name| !present.contains(**name));
    let stale = stale.map(|name| format!("bans.skip has {name}, which nobody uses"));
    twice.chain(bare).chain(stale).map(|what| Finding::file("deny.toml", what)).collect()
}

fn strings(value: Option<&toml::Value>) -> Vec<&str> {
    let values = value.and_then(toml::Value::as_array).into_iter().flatten();
    values.filter_map(toml::Value::as_str).collect()
}

fn tables(value: Option<&toml::Value>) -> impl Iterator<Item = &toml::Table> {
    value.and_then(toml::Value::as_array).into_iter().flatten().filter_map(toml::Value::as_table)
}

/// An SPDX licence expression (SPDX specification 2.3, annex D), with Cargo's old `/` read as `OR`.
#[derive(Debug)]
enum Expression {
    /// `MIT`, or `Apache-2.0 WITH LLVM-exception`; empty where the text is no expression.
    Licence(String),
    /// All of them.
    And(Vec<Expression>),
    /// One of them.
    Or(Vec<Expression>),
}

impl Expression {
    fn of(text: &str) -> Expression {
        let spaced = text.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
        let words: Vec<&str> = spaced.split_whitespace().collect();
        let mut rest = words.as_slice();
        let expression = Expression::any(&mut rest);
        // Words that are left over make the whole thing unreadable, which allows nothing.
        if rest.is_empty() { expression } else { Expression::Licence(String::new()) }
    }

    fn any(rest: &mut &[&str]) -> Expression {
        let mut parts = vec![Expression::all(rest)];
        while let Some((&"OR", after)) = rest.split_first() {
            *rest = after;
            parts.push(Expression::all(rest));
        }
        Expression::Or(parts)
    }

    fn all(rest: &mut &[&str]) -> Expression {
        let mut parts = vec![Expression::one(rest)];
        while let Some((&"AND", after)) = rest.split_first() {
            *rest = after;
            parts.push(Expression::one(rest));
        }
        Expression::And(parts)
    }

    fn one(rest: &mut &[&str]) -> Expression {
        let Some((first, after)) = rest.split_first() else { return Expression::Licence(String::new()) };
        *rest = after;
        if *first == "(" {
            let inner = Expression::any(rest);
            let Some((&")", after)) = rest.split_first() else { return Expression::Licence(String::new()) };
            *rest = after;
            return inner;
        }
        let mut name = (*first).to_owned();
        if let Some((&"WITH", [exception, after @ ..])) = rest.split_first() {
            name = format!("{name} WITH {exception}");
            *rest = after;
        }
        Expression::Licence(name)
    }

    fn holds(&self, is_allowed: &dyn Fn(&str) -> bool) -> bool {
        match self {
            Expression::Licence(name) => is_allowed(name),
            Expression::And(parts) => parts.iter().all(|part| part.holds(is_allowed)),
            Expression::Or(parts) => parts.iter().any(|part| part.holds(is_allowed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(text: &str) -> bool {
        Expression::of(text).holds(&|name| ["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"].contains(&name))
    }

    #[test]
    fn expressions_are_read_as_spdx_has_them() {
        for text in ["MIT", "GPL-3.0 OR MIT", "GPL-3.0/MIT", "MIT AND ISC", "(GPL-3.0 OR MIT) AND ISC"] {
            assert!(holds(text), "{text}");
        }
        assert!(holds("Apache-2.0 WITH LLVM-exception"));
        let refused = [
            "",
            "GPL-3.0",
            "GPL-3.0 AND MIT",
            "MIT AND (ISC",
            "MIT ISC",
            "Apache-2.0",
            "MIT AND",
            "OR MIT",
            ")",
        ];
        for text in refused {
            assert!(!holds(text), "{text}");
        }
    }
}
