//! How much one person may bring in a day. The disk is everybody's.

use std::collections::HashMap;

use towpath_core::cell::RefusalClass;
use towpath_core::ids::{Timestamp, UserId};

use super::{BuiltIn, lock};
use crate::error::{Done, Failure};

/// Bytes of packs that one person may push to one repo in a day of UTC: ten pushes of the greatest size.
pub(crate) const UPLOAD_BYTES_PER_DAY_MAX: u64 = 20 * 1024 * 1024 * 1024;
/// Milliseconds of a day.
const DAY: i64 = 24 * 60 * 60 * 1000;

/// What each person brought today. Not stored: a restart forgives.
#[derive(Debug, Default)]
pub(super) struct Uploads {
    day: i64,
    bytes: HashMap<UserId, u64>,
}

impl Uploads {
    fn today(&mut self, now: Timestamp) -> &mut HashMap<UserId, u64> {
        let day = now.0.div_euclid(DAY);
        if day != self.day {
            (self.day, self.bytes) = (day, HashMap::new());
        }
        &mut self.bytes
    }
}

impl BuiltIn {
    /// Refuses a push of somebody who brought too much today.
    pub(crate) fn may_upload(&self, user: UserId, now: Timestamp) -> Done<()> {
        let brought = lock(&self.inner.uploads).today(now).get(&user).copied().unwrap_or(0);
        match brought < UPLOAD_BYTES_PER_DAY_MAX {
            true => Ok(()),
            false => {
                let why = format!(
                    "you pushed {brought} bytes today, as many as one person may; try again tomorrow"
                );
                Err(Failure::refused(RefusalClass::Denied, why))
            }
        }
    }

    /// Counts what came, taken or not: refused bytes cost time as well.
    pub(crate) fn count_upload(&self, user: UserId, bytes: u64, now: Timestamp) {
        *lock(&self.inner.uploads).today(now).entry(user).or_default() += bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_forgotten_with_its_end() {
        let mut uploads = Uploads::default();
        *uploads.today(Timestamp(DAY)).entry(UserId(1)).or_default() += 5;
        assert_eq!(uploads.today(Timestamp(2 * DAY - 1)).get(&UserId(1)), Some(&5));
        assert_eq!(uploads.today(Timestamp(2 * DAY)).get(&UserId(1)), None);
    }
}
