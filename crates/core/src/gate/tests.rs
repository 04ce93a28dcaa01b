//! Scenarios: a script of what happens to a forge, and what the gate does about it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use expect_test::{Expect, expect};

use super::*;
use crate::candidate::{Candidate, CandidateSpec};
use crate::definition::GateSettings;
use crate::effect::{Effect, EffectKey};
use crate::graph::{JobBody, JobIndex, JobResult, JobSpec, Openings, Origin, Outcome, Trigger};
use crate::ids::{Epoch, TreeId};
use crate::message::{JobReport, Message, RunReport, RunStart};
use crate::outbox::Dispatch;
use crate::policy::{Actor, Level, Role};
use crate::turn::{Delivered, Intake, Live};

mod alerts;
mod bench;
mod deploying;
mod flags;
mod labels;
mod landing;
mod levels;
mod losses;
mod moves;
mod retry;
mod testing;
mod trust;

use bench::{
    ADMIN, AUTHOR, Bench, MAINTAINER, OUTSIDER, STEP_MS, check, check_after, check_with, commit, job,
};
