//! Each rule by its case, without a repository.

use std::collections::{BTreeMap, BTreeSet};

use towpath_core::gate::Labels;

use super::*;

const ANN: UserId = UserId(1);
const BOB: UserId = UserId(2);
const ONE: Option<ObjectId> = Some(ObjectId([1; 20]));
const TWO: Option<ObjectId> = Some(ObjectId([2; 20]));

#[derive(Default)]
struct World {
    refs: BTreeSet<String>,
    owners: BTreeMap<BranchName, UserId>,
}

impl Known for World {
    fn exists(&self, name: &str) -> Done<bool> {
        Ok(self.refs.contains(name))
    }
    fn owner(&self, branch: &BranchName) -> Done<Option<UserId>> {
        Ok(self.owners.get(branch).copied())
    }
    fn beside(&self, _name: &str) -> Done<Option<String>> {
        Ok(None)
    }
    fn branches_of(&self, user: UserId) -> Done<Vec<BranchName>> {
        let own = self.owners.iter().filter(|(_, owner)| **owner == user);
        Ok(own.map(|(branch, _)| branch.clone()).collect())
    }
}

fn world() -> World {
    let refs = ["refs/heads/main", "refs/heads/anns", "refs/heads/old", "refs/tags/v1"];
    let owners = BTreeMap::from([("anns".parse().unwrap(), ANN)]);
    World { refs: refs.iter().map(|name| (*name).to_owned()).collect(), owners }
}

fn ask(
    name: &[u8],
    (old, new): (Option<ObjectId>, Option<ObjectId>),
    by: (UserId, Role),
    options: &[&str],
) -> Done<Move> {
    let policy = Policy::one_branch("main".parse().unwrap(), &Labels::default());
    let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
    let options = PushOptions::parse(&options)?;
    let command = Command { old, new, name: name.to_vec() };
    judge(&command, &options, Pusher { user: by.0, role: by.1, policy: &policy }, &world())
}

fn refused(name: &str, ids: (Option<ObjectId>, Option<ObjectId>), by: (UserId, Role)) -> String {
    match ask(name.as_bytes(), ids, by, &[]) {
        Err(Failure::Refused(refusal)) => refusal.why,
        other => panic!("{name}: {other:?}"),
    }
}

#[test]
fn b01_a_watched_branch_is_not_pushed_to() {
    for role in [Role::Author, Role::Maintainer, Role::Admin] {
        for ids in [(ONE, TWO), (None, TWO)] {
            assert!(refused("refs/heads/main", ids, (ANN, role)).contains("HEAD:refs/for/main"));
        }
        assert!(refused("refs/heads/main", (ONE, None), (ANN, role)).contains("not deleted by push"));
    }
}

#[test]
fn b02_only_listed_refs_are_pushed_to() {
    for name in [
        "refs/replace/1111111111111111111111111111111111111111",
        "refs/notes/commits",
        "refs/towpath/candidates/1",
        "refs/changes/1/1",
        "refs/changes/1/meta",
        "refs/stash",
        "refs/remotes/origin/main",
        "refs/headsx/a",
        "HEAD",
        "refs/pull/1/head",
    ] {
        assert!(refused(name, (None, ONE), (ANN, Role::Admin)).contains("is not for pushing"), "{name}");
    }
}

#[test]
fn b03_tag_and_branch_never_have_one_name() {
    for name in ["refs/tags/main", "refs/tags/anns"] {
        assert!(refused(name, (None, ONE), (ANN, Role::Admin)).contains("there is a branch"), "{name}");
    }
    assert!(refused("refs/heads/v1", (None, ONE), (ANN, Role::Author)).contains("there is a tag"));
}

#[test]
fn b06_hostile_names_are_refused() {
    let long = format!("refs/heads/{}", "a".repeat(4_000));
    let names: [&[u8]; 14] = [
        b"refs/heads/a$(id)",
        b"refs/heads/a<img src=x onerror=1>",
        "refs/heads/a\u{202e}b".as_bytes(),
        b"refs/heads/a\nb",
        b"refs/heads/a..b",
        b"refs/heads/../../x",
        b"refs/heads/.a",
        b"refs/heads/a.lock",
        b"refs/heads/\xff\xfe",
        b"refs/heads/0123456789abcdef0123456789abcdef01234567",
        b"refs/heads/-x",
        b"refs/heads/refs/heads/main",
        b"refs/heads/FETCH_HEAD",
        long.as_bytes(),
    ];
    for name in names {
        for options in [&[][..], &["change"]] {
            let answer = ask(name, (None, ONE), (ANN, Role::Admin), options);
            assert!(matches!(answer, Err(Failure::Refused(_))), "{:?}", String::from_utf8_lossy(name));
        }
        let tag = [b"refs/tags/", name.strip_prefix(b"refs/heads/").unwrap()].concat();
        let answer = ask(&tag, (None, ONE), (ANN, Role::Admin), &[]);
        assert!(matches!(answer, Err(Failure::Refused(_))), "{:?}", String::from_utf8_lossy(&tag));
    }
}

#[test]
fn a26_tags_are_a_matter_of_right() {
    assert!(refused("refs/tags/v9.9.9", (None, ONE), (ANN, Role::Author)).contains("role maintainer"));
    assert!(ask(b"refs/tags/v9.9.9", (None, ONE), (ANN, Role::Maintainer), &[]).is_ok());
    assert!(refused("refs/tags/v1", (ONE, TWO), (ANN, Role::Maintainer)).contains("stays what it is"));
    assert!(refused("refs/tags/v1", (ONE, None), (ANN, Role::Maintainer)).contains("stays what it is"));
}

#[test]
fn branches_belong_to_who_made_them() {
    assert!(ask(b"refs/heads/anns", (ONE, TWO), (ANN, Role::Author), &[]).is_ok());
    assert!(refused("refs/heads/anns", (ONE, TWO), (BOB, Role::Author)).contains("somebody else's"));
    assert!(refused("refs/heads/anns", (ONE, None), (BOB, Role::Author)).contains("somebody else's"));
    assert!(refused("refs/heads/old", (ONE, TWO), (BOB, Role::Author)).contains("somebody else's"));
    assert!(ask(b"refs/heads/anns", (ONE, None), (BOB, Role::Maintainer), &[]).is_ok());
    assert!(ask(b"refs/heads/new", (None, ONE), (BOB, Role::Author), &[]).is_ok());
}

#[test]
fn readers_push_nothing() {
    for name in ["refs/heads/new", "refs/for/main", "refs/tags/v2"] {
        assert!(refused(name, (None, ONE), (BOB, Role::Reader)).contains("role author"), "{name}");
    }
}

#[test]
fn proposals_are_recognised() {
    let propose = |target: Option<&str>, source: Option<&str>, moves_branch| Move::Propose {
        commit: CommitId([1; 20]),
        target: target.map(|name| name.parse().unwrap()),
        source: source.map(|name| name.parse().unwrap()),
        moves_branch,
    };
    for role in [Role::Author, Role::Maintainer, Role::Admin] {
        let ask = |name: &[u8], options: &[&str]| ask(name, (None, ONE), (BOB, role), options);
        assert_eq!(ask(b"refs/for/main", &[]), Ok(propose(Some("main"), None, false)));
        assert_eq!(ask(b"refs/heads/topic", &["change"]), Ok(propose(None, Some("topic"), false)));
        // Somebody else's branch is not moved, but its name may be that of a change of one's own.
        assert_eq!(ask(b"refs/heads/anns", &["change"]), Ok(propose(None, Some("anns"), false)));
        assert_eq!(ask(b"refs/heads/old", &["change"]), Ok(propose(None, Some("old"), false)));
        assert!(ask(b"refs/for/other", &[]).is_err());
        assert!(ask(b"refs/for/main%topic=x", &[]).is_err());
        assert!(ask(b"refs/heads/topic", &["draft"]).is_err());
        assert!(ask(b"refs/heads/main", &["change"]).is_err());
    }
    let own = ask(b"refs/heads/anns", (ONE, ONE), (ANN, Role::Author), &["change"]);
    assert_eq!(own, Ok(propose(None, Some("anns"), true)));
}

#[test]
fn git_hears_of_the_branches_that_its_user_moves() {
    let policy = Policy::one_branch("main".parse().unwrap(), &Labels::default());
    let hidden = |role| {
        let own = world().branches_of(ANN).unwrap();
        hidden(Pusher { user: ANN, role, policy: &policy }, &own)
    };
    assert_eq!(
        hidden(Role::Author),
        ["refs/changes", "refs/notes", "refs/heads", "!refs/heads/main", "!refs/heads/anns"]
    );
    assert_eq!(hidden(Role::Maintainer), ["refs/changes", "refs/notes"]);
}

#[test]
fn no_branch_takes_the_place_of_a_watched_one() {
    let policy = Policy::one_branch("stable/1".parse().unwrap(), &Labels::default());
    for name in ["stable", "stable/1/x"] {
        let command = Command { old: None, new: ONE, name: format!("refs/heads/{name}").into_bytes() };
        let pusher = Pusher { user: ANN, role: Role::Maintainer, policy: &policy };
        let answer = judge(&command, &PushOptions::default(), pusher, &world());
        assert!(answer.is_err_and(|failure| failure.to_string().contains("cannot both be")), "{name}");
    }
}

#[test]
fn an_admin_makes_the_first_watched_branch() {
    let policy = Policy::one_branch("trunk".parse().unwrap(), &Labels::default());
    let command = Command { old: None, new: ONE, name: b"refs/heads/trunk".to_vec() };
    let ask = |role| {
        judge(&command, &PushOptions::default(), Pusher { user: ANN, role, policy: &policy }, &world())
    };
    assert!(ask(Role::Admin).is_ok());
    assert!(ask(Role::Maintainer).is_err());
}
