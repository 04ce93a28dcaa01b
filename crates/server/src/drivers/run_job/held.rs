//! What is known of each job between runs and the executor: one state a lease. What a run asks for and what an executor
//! turns out to have are its transitions, and each answers what is to be done. An end is made up only for a job that no
//! executor has. No job is held and on its way into its run at once.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use towpath_core::ids::{LeaseId, Timestamp};
use towpath_executor::StartMessage;
use towpath_executor::protocol::Leases;

use super::ends::{Asked, Ends, Over};
use super::{Tree, Wanted};
use crate::executor::Standing;

/// A job that a run waits for.
pub(super) struct Held {
    pub wanted: Wanted,
    pub cancelled: bool,
    pub place: Place,
    pub started_at: Option<Timestamp>,
    /// Keeps its files.
    pub tree: Option<Tree>,
}

/// Where a job is, as far as this server knows.
pub(super) enum Place {
    /// No executor was found yet that could be asked. An earlier server may have given it the job, so that nothing is
    /// prepared.
    Unasked,
    /// No executor has it; it is being prepared.
    Here,
    /// No executor has it, and there is none now; it is prepared.
    Ready(StartMessage),
    /// No executor has it, and the one that is there takes no more. That may last for hours, so that nothing is prepared
    /// which would be stale by then: rights and secrets are those of the moment in which the next one is given the job.
    Later,
    /// The executor has it, or was given it: its end comes from there and from nowhere else.
    There(Has),
}

/// What an executor has of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Has {
    /// A job that waits for a slot or runs.
    Job,
    /// Its end, which is not acknowledged.
    End,
}

/// What is known of all jobs.
#[derive(Default)]
pub(super) struct State {
    pub held: HashMap<LeaseId, Held>,
    /// Held jobs without files and secrets, which wait to be prepared together.
    pub light: Vec<LeaseId>,
    /// Ends that are not durable yet.
    pub ends: Ends<Wanted>,
    /// What the executor had when it was found, and has not told the end of since. `None` before the first was found.
    found: Option<HashMap<LeaseId, Has>>,
    /// It is given no jobs.
    leaves: bool,
    all_claimed: bool,
    /// How often jobs were left to their runs because this server may not prepare them.
    given_back: HashMap<LeaseId, u32>,
}

/// What follows when a run asks for a job.
pub(super) enum Started {
    /// Nothing: it is under way, or its end is.
    Waits,
    /// An executor has it, or may have it: its files are to stay.
    Adopted,
    /// It is to be prepared.
    New,
    /// It is over.
    Over(Wanted, Box<Over>),
}

/// What follows when a run has no more use for a job.
pub(super) enum Stopped {
    /// Nothing: its end comes by itself, or whoever has it next looks whether it is still wanted.
    Waits,
    /// The executor is to be told.
    There,
    /// It is over.
    Over(Wanted, Box<Over>),
    /// It has not begun and never does.
    Never(Wanted),
}

/// What follows when an executor has said what it has.
#[derive(Default)]
pub(super) struct Compared {
    /// To be stopped there.
    pub cancel: Vec<LeaseId>,
    /// To be prepared.
    pub prepare: Vec<LeaseId>,
    /// To be given to it.
    pub send: Vec<StartMessage>,
    /// Cancelled, and never begun.
    pub never: Vec<(LeaseId, Wanted)>,
}

/// What the executor has and no run waits for.
#[derive(Default)]
pub(super) struct Nobodys {
    /// To be stopped, should it still run.
    pub stop: Vec<LeaseId>,
    /// Its end, should it be over, is for nobody.
    pub forget: Vec<LeaseId>,
}

impl Held {
    fn new(wanted: Wanted, place: Place) -> Held {
        Held { wanted, cancelled: false, place, started_at: None, tree: None }
    }

    /// Whether it is to be prepared, or given to an executor.
    pub fn is_to_be_sent(&self) -> bool {
        matches!(self.place, Place::Here) && !self.cancelled
    }
}

impl State {
    /// A run asks for a job.
    pub fn start(&mut self, lease: LeaseId, wanted: Wanted) -> Started {
        let wanted = match self.ends.ask(&lease, wanted) {
            Asked::Coming => return Started::Waits,
            Asked::Over(wanted, over) => return Started::Over(wanted, over),
            Asked::Unknown(wanted) => wanted,
        };
        let place = self.place_of_unheld(&lease);
        match self.held.entry(lease) {
            Entry::Occupied(mut held) => {
                let held = held.get_mut();
                (held.wanted, held.cancelled) = (wanted, false);
                Started::Waits
            }
            Entry::Vacant(free) => {
                let started = match place {
                    Place::Here => Started::New,
                    Place::Later => Started::Waits,
                    Place::Unasked | Place::Ready(_) | Place::There(_) => Started::Adopted,
                };
                free.insert(Held::new(wanted, place));
                started
            }
        }
    }

    /// A run has no more use for a job. Its end counts all the same, as far as there is one.
    pub fn cancel(&mut self, lease: LeaseId, wanted: Wanted) -> Stopped {
        let wanted = match self.ends.ask(&lease, wanted) {
            Asked::Coming => return Stopped::Waits,
            Asked::Over(wanted, over) => return Stopped::Over(wanted, over),
            Asked::Unknown(wanted) => wanted,
        };
        let place = self.place_of_unheld(&lease);
        match self.held.entry(lease) {
            Entry::Occupied(mut held) => {
                let held = held.get_mut();
                (held.wanted, held.cancelled) = (wanted, true);
            }
            Entry::Vacant(_) if matches!(place, Place::Here | Place::Later) => {
                self.given_back.remove(&lease);
                self.ends.deliver(lease);
                return Stopped::Never(wanted);
            }
            Entry::Vacant(free) => {
                free.insert(Held { cancelled: true, ..Held::new(wanted, place) });
            }
        }
        match self.held[&lease].place {
            Place::Unasked | Place::Here | Place::There(Has::End) => Stopped::Waits,
            Place::There(Has::Job) => Stopped::There,
            Place::Ready(_) | Place::Later => {
                let held = self.release(&lease).expect("invariant: it was just found");
                Stopped::Never(held.wanted)
            }
        }
    }

    fn place_of_unheld(&self, lease: &LeaseId) -> Place {
        match &self.found {
            None => Place::Unasked,
            Some(found) => match found.get(lease) {
                Some(has) => Place::There(*has),
                None if self.leaves => Place::Later,
                None => Place::Here,
            },
        }
    }

    /// Whether the executor that there is is given no jobs.
    pub fn leaves(&self) -> bool {
        self.leaves
    }

    /// Where a prepared job is that could not be given away.
    pub fn place_of_unsent(&self, job: StartMessage) -> Place {
        if self.leaves { Place::Later } else { Place::Ready(job) }
    }

    /// The executor that there is from now on, the first one or a successor, has these leases.
    pub fn found(&mut self, leases: &Leases, standing: &Standing) -> Compared {
        self.leaves = matches!(standing, Standing::Leaves { .. });
        let jobs = leases.active.iter().map(|lease| (*lease, Has::Job));
        // An end may be heard before this, and acknowledged to nobody.
        let ends = leases.unacked.iter().map(|lease| (*lease, Has::End));
        let found: HashMap<LeaseId, Has> = jobs.chain(ends).collect();
        let mut compared = Compared::default();
        let mut never = Vec::new();
        for (lease, held) in &mut self.held {
            let former = std::mem::replace(&mut held.place, Place::Here);
            match (found.get(lease), former) {
                (Some(has), _) => {
                    held.place = Place::There(*has);
                    // The connection before may have taken the word with it.
                    if held.cancelled && *has == Has::Job {
                        compared.cancel.push(*lease);
                    }
                }
                // Whoever prepares it goes on.
                (None, Place::Here) => {}
                (None, Place::Ready(job)) if !self.leaves => compared.send.push(job),
                // An executor writes down what it begins before it begins: what it was given and has no word of, it has not
                // begun.
                (None, _) if held.cancelled => never.push(*lease),
                (None, _) => {
                    held.started_at = None;
                    match self.leaves {
                        true => held.place = Place::Later,
                        false => compared.prepare.push(*lease),
                    }
                }
            }
        }
        self.found = Some(found);
        let never = never.into_iter().filter_map(|lease| Some((lease, self.release(&lease)?.wanted)));
        compared.never = never.collect();
        compared
    }

    /// The executor tells the end of a job. Whoever waits for it is released; one of an earlier server's time waits until
    /// the run that owns it asks for it.
    pub fn ended(&mut self, lease: &LeaseId) -> Option<Held> {
        if let Some(found) = &mut self.found {
            found.remove(lease);
        }
        self.release(lease)
    }

    /// A job is over: from the same moment on its end is on its way, so that a run which asks meanwhile is not told that
    /// nothing is known of it.
    pub fn release(&mut self, lease: &LeaseId) -> Option<Held> {
        let held = self.held.remove(lease)?;
        self.given_back.remove(lease);
        self.ends.deliver(*lease);
        Some(held)
    }

    /// The same for a job that was cancelled before it was given to an executor.
    pub fn release_cancelled(&mut self, lease: &LeaseId) -> Option<Wanted> {
        let held = self.held.get(lease)?;
        let is_over = held.cancelled && matches!(held.place, Place::Here);
        is_over.then(|| self.release(lease)).flatten().map(|held| held.wanted)
    }

    /// A job that no executor has is left to its run, which asks again later. Answers how often in a row that was so.
    pub fn give_back(&mut self, lease: &LeaseId) -> Option<(Wanted, u32)> {
        let held = self.held.remove(lease)?;
        let tries = self.given_back.entry(*lease).or_default();
        *tries += 1;
        Some((held.wanted, *tries))
    }

    /// How often in a row a job was given back.
    pub fn times_given_back(&self, lease: &LeaseId) -> u32 {
        self.given_back.get(lease).copied().unwrap_or_default()
    }

    /// Whether a job is not over for its run, as far as this server knows.
    pub fn is_open(&self, lease: &LeaseId) -> bool {
        self.held.contains_key(lease) || self.ends.knows(lease) || self.given_back.contains_key(lease)
    }

    /// Every run has said what it wants.
    pub fn all_claimed(&mut self) {
        self.all_claimed = true;
    }

    /// What the executor has and no run waits for, once every run has said what it wants.
    pub fn take_nobodys(&mut self) -> Nobodys {
        let Some(found) = self.found.as_mut().filter(|_| self.all_claimed) else { return Nobodys::default() };
        let found = std::mem::take(found).into_keys();
        let stop: Vec<LeaseId> = found.filter(|lease| !self.held.contains_key(lease)).collect();
        let mut forget = self.ends.take_unclaimed();
        // An end that is on its way into its run, or comes back from there, is its run's until it is durable.
        forget.extend(stop.iter().filter(|lease| !self.ends.knows(lease)));
        Nobodys { stop, forget }
    }
}
