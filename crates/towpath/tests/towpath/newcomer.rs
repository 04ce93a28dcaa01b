//! What somebody who meets Towpath for the first time does, and what the program answers: enough to go on by oneself.

use crate::support::{Ended, World};

#[track_caller]
fn says(ended: &Ended, code: i32, said: &[&str]) {
    assert_eq!(ended.code, code, "{}{}", ended.out, ended.err);
    for said in said {
        let all = format!("{}{}", ended.out, ended.err);
        assert!(all.contains(said), "`{said}` is not in {all}");
    }
}

#[test]
fn data_that_were_moved_away_from_their_keys_are_verified_with_the_key() {
    let world = World::with(&[]);
    let home = |name: &str| world.home().join(name).display().to_string();
    assert_eq!(world.towpath(&["init", "--data", &home("data")]).code, 0);
    let key = world.towpath(&["audit", "key", "--data", &home("data")]).out;
    std::fs::rename(home("data"), home("moved")).unwrap();
    let verify = |more: &[&str]| {
        world.towpath(&[&["audit", "verify", "--data", home("moved").as_str()], more].concat())
    };
    let said = format!("there is no key in `{}` to verify", home("moved-keys"));
    let alone = verify(&[]);
    says(&alone, 3, &[&said, "--keys FOLDER", "--key KEY"]);
    assert!(!alone.out.contains("finding"), "it is said once: {}", alone.out);
    says(&verify(&["--json"]), 3, &["\"exit\":3"]);
    says(&verify(&["--keys", &home("data-keys")]), 0, &["sound"]);
    says(&verify(&["--key", key.trim()]), 0, &["sound"]);
}
