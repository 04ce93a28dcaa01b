//! A few threads that carry out what blocks.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

type Work = Box<dyn FnOnce() + Send>;

/// Threads that take work in its order. They end when the last handle is dropped.
pub struct Workers {
    work: Sender<Work>,
}

impl Workers {
    /// Starts `count` threads.
    pub fn start(count: usize) -> Workers {
        let (work, queue) = channel::<Work>();
        let queue = Arc::new(Mutex::new(queue));
        for number in 0..count {
            let queue = queue.clone();
            std::thread::Builder::new()
                .name(format!("driver-{number}"))
                .spawn(move || run(&queue))
                .expect("invariant: threads can be started when the server starts");
        }
        Workers { work }
    }

    /// Has a thread do `work`, after what was given before it.
    pub fn run(&self, work: Work) {
        self.work.send(work).expect("invariant: the threads live as long as the sender");
    }
}

fn run(queue: &Mutex<Receiver<Work>>) {
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match next {
            // Whoever gave the work looks after what a panic costs; here it must not cost the thread.
            Ok(work) => {
                if catch_unwind(AssertUnwindSafe(work)).is_err() {
                    tracing::error!("a driver's thread panicked: a bug of Towpath");
                }
            }
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn work_that_panics_costs_no_thread() {
        let workers = Workers::start(1);
        workers.run(Box::new(|| panic!("as this test wants")));
        let (done, is_done) = channel();
        workers.run(Box::new(move || done.send(()).unwrap()));
        is_done.recv_timeout(Duration::from_secs(30)).expect("the thread goes on");
    }
}
