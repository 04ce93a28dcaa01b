//! A few threads that carry out what blocks.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use towpath_core::ids::RepoName;

type Work = Box<dyn FnOnce() + Send>;

/// Whose work it is: a repo's, or nobody's in particular.
pub type Party = Option<RepoName>;

/// Threads that take each party's work in its order, and the parties by turns. They end when the handle is dropped.
pub struct Workers {
    shared: Arc<Shared>,
}

struct Shared {
    lines: Mutex<Lines>,
    changed: Condvar,
}

/// How many threads there are, and for whom.
#[derive(Debug, Clone, Copy)]
pub struct Places {
    /// Threads.
    pub all: usize,
    /// How many of them one party may have at once.
    pub of_one_party: usize,
}

struct Lines {
    of_one_party: usize,
    /// Work that waits; the party in front is the next to have a thread.
    waiting: VecDeque<(Party, VecDeque<Work>)>,
    /// Threads that each party has.
    busy: HashMap<Party, usize>,
    is_closed: bool,
}

impl Lines {
    fn put(&mut self, party: Party, work: Work) {
        match self.waiting.iter_mut().find(|(other, _)| *other == party) {
            Some((_, line)) => line.push_back(work),
            None => self.waiting.push_back((party, VecDeque::from([work]))),
        }
    }

    fn take(&mut self) -> Option<(Party, Work)> {
        let may_have_one =
            |(party, _): &(Party, _)| self.busy.get(party).is_none_or(|busy| *busy < self.of_one_party);
        let at = self.waiting.iter().position(may_have_one)?;
        let (party, mut line) = self.waiting.remove(at)?;
        let work = line.pop_front()?;
        if !line.is_empty() {
            self.waiting.push_back((party.clone(), line));
        }
        *self.busy.entry(party.clone()).or_default() += 1;
        Some((party, work))
    }

    fn give_back(&mut self, party: &Party) {
        let busy = self.busy.get_mut(party).expect("invariant: who gives a thread back has one");
        *busy -= 1;
        if *busy == 0 {
            self.busy.remove(party);
        }
    }
}

impl Shared {
    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What to do next; `None`: there will be nothing any more.
    fn next(&self) -> Option<(Party, Work)> {
        let mut lines = self.lines();
        loop {
            match lines.take() {
                Some(next) => return Some(next),
                None if lines.is_closed && lines.waiting.is_empty() => return None,
                None => lines = self.changed.wait(lines).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    fn work(&self) {
        while let Some((party, work)) = self.next() {
            // Whoever gave the work looks after what a panic costs; here it must not cost the thread.
            if catch_unwind(AssertUnwindSafe(work)).is_err() {
                tracing::error!("a driver's thread panicked: a bug of Towpath");
            }
            self.lines().give_back(&party);
            self.changed.notify_all();
        }
    }
}

impl Workers {
    /// Starts so many threads, which any party may have.
    pub fn start(count: usize) -> Workers {
        Workers::start_for_many(Places { all: count, of_one_party: count })
    }

    /// Starts threads of which no party has all.
    pub fn start_for_many(places: Places) -> Workers {
        let lines = Lines {
            of_one_party: places.of_one_party,
            waiting: VecDeque::new(),
            busy: HashMap::new(),
            is_closed: false,
        };
        let shared = Arc::new(Shared { lines: Mutex::new(lines), changed: Condvar::new() });
        for number in 0..places.all {
            let shared = shared.clone();
            std::thread::Builder::new()
                .name(format!("driver-{number}"))
                .spawn(move || shared.work())
                .expect("invariant: threads can be started when the server starts");
        }
        Workers { shared }
    }

    /// Has a thread do nobody's `work`, after what was given before it.
    pub fn run(&self, work: Work) {
        self.run_for(None, work);
    }

    /// Has a thread do a party's `work`, after what the party gave before it.
    pub fn run_for(&self, party: Party, work: Work) {
        self.shared.lines().put(party, work);
        self.shared.changed.notify_one();
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.shared.lines().is_closed = true;
        self.shared.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::time::Duration;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn party(name: &str) -> Party {
        Some(name.parse().unwrap())
    }

    /// Work that says that it has begun, and goes on until its sender is dropped.
    fn held(name: &'static str, begun: &Sender<&'static str>) -> (Sender<()>, Work) {
        let (hold, held): (Sender<()>, Receiver<()>) = channel();
        let begun = begun.clone();
        let work = move || {
            begun.send(name).unwrap();
            let _ = held.recv();
        };
        (hold, Box::new(work))
    }

    #[test]
    fn work_that_panics_costs_no_thread() {
        let workers = Workers::start(1);
        workers.run(Box::new(|| panic!("as this test wants")));
        let (done, is_done) = channel();
        workers.run(Box::new(move || done.send(()).unwrap()));
        is_done.recv_timeout(PATIENCE).expect("the thread goes on");
    }

    #[test]
    fn a_party_with_much_work_leaves_threads_to_the_others() {
        let workers = Workers::start_for_many(Places { all: 3, of_one_party: 2 });
        let (begun, begins) = channel();
        let mut holds = VecDeque::new();
        for name in ["slow 1", "slow 2", "slow 3", "slow 4"] {
            let (hold, work) = held(name, &begun);
            holds.push_back(hold);
            workers.run_for(party("slow"), work);
        }
        let (hold, work) = held("quick", &begun);
        workers.run_for(party("quick"), work);
        let mut first: Vec<_> = (0..3).map(|_| begins.recv_timeout(PATIENCE).unwrap()).collect();
        first.sort_unstable();
        assert_eq!(first, ["quick", "slow 1", "slow 2"]);
        // The thread that is free is none for the third of those.
        drop(hold);
        let (hold, work) = held("quick again", &begun);
        workers.run_for(party("quick"), work);
        assert_eq!(begins.recv_timeout(PATIENCE).unwrap(), "quick again");
        drop(hold);
        holds.pop_front();
        assert_eq!(begins.recv_timeout(PATIENCE).unwrap(), "slow 3");
    }

    #[test]
    fn parties_have_their_turns() {
        let workers = Workers::start(1);
        let (begun, begins) = channel();
        let (hold, work) = held("first", &begun);
        workers.run(work);
        assert_eq!(begins.recv_timeout(PATIENCE).unwrap(), "first");
        for (repo, name) in [("a", "a 1"), ("a", "a 2"), ("a", "a 3"), ("b", "b 1"), ("c", "c 1")] {
            let begun = begun.clone();
            workers.run_for(party(repo), Box::new(move || begun.send(name).unwrap()));
        }
        drop(hold);
        let order: Vec<_> = (0..5).map(|_| begins.recv_timeout(PATIENCE).unwrap()).collect();
        assert_eq!(order, ["a 1", "b 1", "c 1", "a 2", "a 3"]);
    }
}
