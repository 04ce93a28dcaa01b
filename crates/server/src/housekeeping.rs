//! What piles up goes again: old runs with their jobs, tests and logs, outputs, candidates that nothing asks for, and
//! what Git no longer reaches (invariant I15).
//!
//! A thread of its own looks a few times a minute whether it is time, whether the disk has room, whether a repository that
//! could not be put right for a reason that passes can be by now, and which git processes nobody uses. It works in small units: each is a short
//! transaction, one folder or one repository, and between two of them the server may stop. Nothing goes that an open
//! change, a run that its gate remembers or that is not over, a job under way, or the record of a landing needs.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use towpath_blob::{BlobError, BlobStore, LogStore};
use towpath_core::ids::Timestamp;
use towpath_git::{GitError, Interrupt};
use towpath_store::{ReadError, Store, View, WriteError};

use crate::clock::Clock;
use crate::drivers::run_job::Jobs;
use crate::forges::Forges;
use crate::mend;
use crate::repos::Repos;

mod objects;
mod records;
mod wanted;

/// Between two looks. People wait to push where a repository is to be put right, and a try may read all of it.
const LOOK_EVERY: Duration = Duration::from_secs(20);
/// Names of the settings.
const SETTING: &str = "retention";
const FIGURES: &str = "housekeeping";
/// Milliseconds of a day and of an hour.
const DAY_MS: i64 = 86_400_000;
const HOUR_MS: i64 = 3_600_000;

/// How long what is kept. Days count from a run's start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Retention {
    /// Runs, with their jobs and tests. Those that a landing rests on stay for ever: they are the proof.
    pub run_days: u32,
    /// The newest runs of each branch that stay whatever their age.
    pub runs_min: u32,
    /// Logs of jobs.
    pub log_days: u32,
    /// Outputs of jobs.
    pub artifact_days: u32,
    /// Days for which a stored file stays although nothing seems to want it: longer than any job runs.
    pub grace_days: u32,
    /// Alerts of each repo.
    pub alerts_max: u32,
    /// Deployments of each environment; the one that runs there stays whatever its age.
    pub deployments_max: u32,
    /// Loose objects of a repository above which Git collects. Source: `gc.auto` of Git.
    pub loose_objects_max: u32,
    /// MiB of loose objects of a repository above which Git collects: the first start of a machine reads them all, 100 MiB in
    /// about a second.
    pub loose_mib_max: u32,
    /// Packs of a repository above which Git collects. Source: `gc.autoPackLimit` of Git.
    pub packs_max: u32,
    /// Hours between two times.
    pub every_hours: u32,
}

impl Default for Retention {
    fn default() -> Self {
        Retention {
            run_days: 90,
            runs_min: 100,
            log_days: 60,
            artifact_days: 30,
            grace_days: 7,
            alerts_max: 1_000,
            deployments_max: 1_000,
            loose_objects_max: 6_700,
            loose_mib_max: 256,
            packs_max: 50,
            every_hours: 24,
        }
    }
}

impl Retention {
    /// As an admin set it.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(view: &View) -> Result<Retention, ReadError> {
        let Some(text) = view.setting(SETTING)? else { return Ok(Retention::default()) };
        serde_json::from_str(&text)
            .map_err(|why| ReadError::Damaged { why: format!("setting `{SETTING}`: {why}") })
    }

    /// Keeps it as the setting.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn write(&self, tx: &mut towpath_store::Tx<'_>) -> Result<(), WriteError> {
        let text = serde_json::to_string(self).expect("invariant: numbers are JSON");
        tx.put_setting(SETTING, &text)
    }

    fn before(days: u32, now: Timestamp) -> Timestamp {
        Timestamp(now.0.saturating_sub(i64::from(days) * DAY_MS))
    }
}

/// What the last time came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default)]
pub struct Figures {
    /// When it began.
    pub began_at: i64,
    /// When it ended.
    pub ended_at: i64,
    /// Runs removed.
    pub runs: u64,
    /// Attempts of jobs removed.
    pub jobs: u64,
    /// Tests removed.
    pub tests: u64,
    /// Logs of jobs looked at and removed where they were.
    pub logs: u64,
    /// Files of outputs removed.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Alerts removed.
    pub alerts: u64,
    /// Deployments removed from the lists.
    pub deployments: u64,
    /// Candidates let go of.
    pub candidates: u64,
    /// Repositories that Git packed anew.
    pub repositories: u64,
    /// What did not work; it is tried again the next time.
    pub trouble: Vec<String>,
}

impl Figures {
    /// Those of the last time, if there was one.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn read(view: &View) -> Result<Option<Figures>, ReadError> {
        let read = |text: String| {
            serde_json::from_str(&text)
                .map_err(|why| ReadError::Damaged { why: format!("setting `{FIGURES}`: {why}") })
        };
        view.setting(FIGURES)?.map(read).transpose()
    }
}

/// Why a part of it did not work.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error(transparent)]
    Blob(#[from] BlobError),
    #[error(transparent)]
    Git(#[from] GitError),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the server stops")]
    Stopping,
}

/// What housekeeping works with.
pub struct House {
    /// The rows.
    pub store: Arc<Store>,
    /// The repositories.
    pub repos: Arc<Repos>,
    /// The forge of each.
    pub forges: Arc<Forges>,
    /// Outputs.
    pub blobs: BlobStore,
    /// Logs.
    pub logs: LogStore,
    /// What jobs start from.
    pub jobs: Arc<Jobs>,
}

/// The way to the thread.
#[derive(Clone)]
pub struct Housekeeping {
    words: Sender<Word>,
}

/// What the thread is told.
enum Word {
    /// Do it now, and say what it came to.
    Now(oneshot::Sender<Figures>),
    /// End.
    Stop,
}

/// The thread.
pub struct Housekeeper {
    words: Sender<Word>,
    thread: JoinHandle<()>,
    stopping: Arc<AtomicBool>,
    interrupt: Interrupt,
}

struct Keeper {
    house: House,
    clock: Clock,
    stopping: Arc<AtomicBool>,
    /// Ends a git that may take an hour.
    interrupt: Interrupt,
    /// When it last ended in this process: what is stored says nothing of that where it cannot be stored.
    ended_at: AtomicI64,
}

impl Housekeeping {
    /// Starts the thread.
    ///
    /// # Errors
    /// This process has no descriptor left.
    pub fn start(house: House) -> io::Result<(Housekeeping, Housekeeper)> {
        let (words, heard) = channel();
        let (stopping, interrupt) = (Arc::new(AtomicBool::new(false)), Interrupt::new()?);
        let clock = Clock::new(house.store.writer().clone());
        let keeper = Keeper {
            house,
            clock,
            stopping: stopping.clone(),
            interrupt: interrupt.clone(),
            ended_at: AtomicI64::new(0),
        };
        let thread = std::thread::Builder::new()
            .name("housekeeping".into())
            .spawn(move || keeper.serve(&heard))
            .expect("invariant: a thread can be started when the server starts");
        Ok((Housekeeping { words: words.clone() }, Housekeeper { words, thread, stopping, interrupt }))
    }

    /// Has it done now, and returns what it came to; `None`: the server stops.
    pub async fn now(&self) -> Option<Figures> {
        let (send, receive) = oneshot::channel();
        self.words.send(Word::Now(send)).ok()?;
        receive.await.ok()
    }
}

impl Housekeeper {
    /// Ends the thread after the unit that is under way; a git that collects is ended.
    pub fn stop(self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.interrupt.raise();
        // A thread that has ended needs no word.
        let _ = self.words.send(Word::Stop);
        if self.thread.join().is_err() {
            tracing::error!("housekeeping had panicked: a bug of Towpath");
        }
    }
}

/// Whether it is to begin anew, by what is stored of the last time and by when it last ended in this process.
fn is_time(retention: &Retention, (stored, here): (Option<&Figures>, i64), now: Timestamp) -> bool {
    let last = stored.map_or(0, |figures| figures.ended_at).max(here);
    now.0 - last >= i64::from(retention.every_hours) * HOUR_MS
}

impl Keeper {
    fn serve(&self, heard: &Receiver<Word>) {
        while !self.stops() {
            let word = heard.recv_timeout(LOOK_EVERY);
            if let Ok(Word::Stop) | Err(RecvTimeoutError::Disconnected) = word {
                return;
            }
            if let Err(error) = mend::those_that_wait(&self.house.forges, self.clock.now()) {
                tracing::error!(%error, "no repository was put right: {error}");
            }
            self.house.jobs.give_way();
            self.house.repos.close_idle_processes();
            match word {
                Ok(Word::Now(answer)) => {
                    // Whoever asked may have gone.
                    let _ = answer.send(self.keep());
                }
                _ if self.is_due() => drop(self.keep()),
                _ => {}
            }
        }
    }

    fn stops(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Between two units.
    fn go_on(&self) -> Result<(), Trouble> {
        if self.stops() { Err(Trouble::Stopping) } else { Ok(()) }
    }

    fn is_due(&self) -> bool {
        let look = || -> Result<bool, ReadError> {
            let view = self.house.store.reader().snapshot()?;
            let here = self.ended_at.load(Ordering::Relaxed);
            Ok(is_time(&Retention::read(&view)?, (Figures::read(&view)?.as_ref(), here), self.clock.now()))
        };
        look().unwrap_or_else(|error| {
            tracing::error!(%error, "it is not known whether housekeeping is due: {error}");
            false
        })
    }

    /// Everything once. A part that does not work keeps no other from being done.
    fn keep(&self) -> Figures {
        let began = self.clock.now();
        let mut figures = Figures { began_at: began.0, ..Figures::default() };
        let retention = self.house.store.reader().snapshot().and_then(|view| Retention::read(&view));
        match retention {
            Ok(retention) => self.parts(&retention, began, &mut figures),
            Err(error) => figures.trouble.push(error.to_string()),
        }
        if self.stops() {
            // Not done: the next server begins again at once.
            return figures;
        }
        figures.ended_at = self.clock.now().0;
        self.ended_at.store(figures.ended_at, Ordering::Relaxed);
        let text = serde_json::to_string(&figures).expect("invariant: figures are JSON");
        let stored = self.house.store.writer().write(move |tx| tx.put_setting(FIGURES, &text));
        if let Err(error) = stored {
            tracing::warn!(%error, "the figures of housekeeping were not stored: {error}");
        }
        figures
    }

    fn parts(&self, retention: &Retention, now: Timestamp, figures: &mut Figures) {
        type Part = fn(&Keeper, &Retention, Timestamp, &mut Figures) -> Result<(), Trouble>;
        let parts: [(&str, Part); 5] = [
            ("runs", Keeper::runs),
            ("lists", Keeper::lists),
            ("outputs", Keeper::outputs),
            ("candidates", Keeper::candidates),
            ("repositories", Keeper::repositories),
        ];
        for (name, part) in parts {
            match part(self, retention, now, figures) {
                Ok(()) => {}
                Err(Trouble::Stopping) => return,
                Err(error) => {
                    tracing::warn!(%error, "housekeeping of {name} did not work: {error}");
                    figures.trouble.push(format!("{name}: {error}"));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_begins_anew_when_its_time_has_passed_since_it_ended_though_that_was_not_stored() {
        let retention = Retention { every_hours: 2, ..Retention::default() };
        let stored = Figures { ended_at: 7 * HOUR_MS, ..Figures::default() };
        let at = |hours: i64| Timestamp(hours * HOUR_MS);
        let due = |stored, here: i64, now| is_time(&retention, (stored, here * HOUR_MS), at(now));
        assert!(due(None, 0, 10) && due(Some(&stored), 0, 10));
        assert!(!due(Some(&stored), 0, 8));
        assert_eq!([10, 11, 12].map(|now| due(Some(&stored), 10, now)), [false, false, true]);
        assert_eq!([11, 12].map(|now| due(None, 10, now)), [false, true]);
    }
}
