//! How much one person may bring in a day and do in an hour. The disk is everybody's.

use std::collections::HashMap;

use towpath_core::cell::RefusalClass;
use towpath_core::ids::{Timestamp, UserId};
use towpath_core::policy::Role;

use super::{BuiltIn, lock};
use crate::error::{Done, Failure};

/// Bytes of packs and of records of changes that one person may bring to one repo in a day of UTC: ten pushes of the greatest
/// size.
pub(crate) const UPLOAD_BYTES_PER_DAY_MAX: u64 = 20 * 1024 * 1024 * 1024;
/// Milliseconds of a day.
const DAY: i64 = 24 * 60 * 60 * 1000;

/// What one author may do in one repo in an hour, unless its settings say otherwise: push, and comment, label or make drafts of
/// changes. Each act stays in the repository for ever, and each push brings a pack, which every git opens until the next
/// housekeeping: 700 of them make a push of anybody half as slow again.
pub const ACTS_PER_HOUR: u32 = 500;
/// The same at least for maintainers, who look after everybody's changes, often by a program.
const ACTS_OF_MAINTAINERS_PER_HOUR_MAX: u32 = 20_000;
/// Milliseconds of an hour and of a minute.
const HOUR: i64 = 60 * 60 * 1000;
const MINUTE: i64 = 60 * 1000;

/// What each person brought today, and did and pushed in this hour. Not stored: a restart forgives.
#[derive(Debug, Default)]
pub(super) struct Uploads {
    bytes: Since<u64>,
    acts: Since<u32>,
}

/// Counts of each person since a day or an hour began, as the number of it says.
#[derive(Debug, Default)]
struct Since<T> {
    began: i64,
    counts: HashMap<UserId, T>,
}

impl<T> Since<T> {
    fn at(&mut self, began: i64) -> &mut HashMap<UserId, T> {
        // What began in the hour before, and comes through only now, counts here.
        if began > self.began {
            *self = Since { began, counts: HashMap::new() };
        }
        &mut self.counts
    }
}

impl Uploads {
    fn today(&mut self, now: Timestamp) -> &mut HashMap<UserId, u64> {
        self.bytes.at(now.0.div_euclid(DAY))
    }

    fn this_hour(&mut self, now: Timestamp) -> &mut HashMap<UserId, u32> {
        self.acts.at(now.0.div_euclid(HOUR))
    }
}

impl BuiltIn {
    /// Refuses a push or an act of somebody who brought too much today.
    pub(crate) fn may_upload(&self, user: UserId, now: Timestamp) -> Done<()> {
        let brought = lock(&self.inner.uploads).today(now).get(&user).copied().unwrap_or(0);
        match brought < UPLOAD_BYTES_PER_DAY_MAX {
            true => Ok(()),
            false => {
                let why = format!(
                    "you brought {brought} bytes today, as many as one person may; try again tomorrow"
                );
                Err(Failure::refused(RefusalClass::Limited, why))
            }
        }
    }

    /// Refuses an act of somebody who did too much in this hour.
    pub(crate) fn may_act(&self, user: UserId, role: Role, now: Timestamp) -> Done<()> {
        self.may_upload(user, now)?;
        let of_authors = self.records().policy()?.acts_per_hour;
        let most = match role {
            Role::Reader | Role::Author => of_authors,
            Role::Maintainer | Role::Admin => of_authors.max(ACTS_OF_MAINTAINERS_PER_HOUR_MAX),
        };
        let done = lock(&self.inner.uploads).this_hour(now).get(&user).copied().unwrap_or(0);
        if done < most {
            return Ok(());
        }
        let minutes = (HOUR - now.0.rem_euclid(HOUR)).unsigned_abs().div_ceil(MINUTE.unsigned_abs());
        let why = format!(
            "you pushed to `{}`, or did things to its changes, {done} times in this hour, as often as one person may; try \
             again in {minutes} min",
            self.name()
        );
        Err(Failure::refused(RefusalClass::Limited, why))
    }

    /// Counts what came, taken or not: refused bytes cost time as well.
    pub(crate) fn count_upload(&self, user: UserId, bytes: u64, now: Timestamp) {
        *lock(&self.inner.uploads).today(now).entry(user).or_default() += bytes;
    }

    /// Counts an act that was done, or a push, taken or not.
    pub(crate) fn count_act(&self, user: UserId, now: Timestamp) {
        *lock(&self.inner.uploads).this_hour(now).entry(user).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_and_an_hour_are_forgotten_with_their_end() {
        let mut uploads = Uploads::default();
        *uploads.today(Timestamp(DAY)).entry(UserId(1)).or_default() += 5;
        assert_eq!(uploads.today(Timestamp(2 * DAY - 1)).get(&UserId(1)), Some(&5));
        assert_eq!(uploads.today(Timestamp(2 * DAY)).get(&UserId(1)), None);
        *uploads.this_hour(Timestamp(HOUR)).entry(UserId(1)).or_default() += 1;
        assert_eq!(uploads.this_hour(Timestamp(2 * HOUR - 1)).get(&UserId(1)), Some(&1));
        assert_eq!(uploads.this_hour(Timestamp(2 * HOUR)).get(&UserId(1)), None);
        // A request that began before the hour did, and took long, makes nobody's count new.
        *uploads.this_hour(Timestamp(2 * HOUR)).entry(UserId(1)).or_default() += 1;
        *uploads.this_hour(Timestamp(2 * HOUR - 1)).entry(UserId(1)).or_default() += 1;
        assert_eq!(uploads.this_hour(Timestamp(2 * HOUR)).get(&UserId(1)), Some(&2));
    }
}
