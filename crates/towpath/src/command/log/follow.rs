//! Following a log while its job writes, over the server's own end: a job goes on while another program takes the
//! server's place.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::Printer;
use crate::command::answer::text;
use crate::failure::{Exit, Failure};
use crate::remote::{Client, Next, Request};
use crate::terminal::Terminal;

/// How long a server is waited for. It says `alive` every 5 s, so a silent one has missed three and had one to spare; one that
/// is replaced is back within seconds.
const USUAL: Patience = Patience { silent: Duration::from_secs(20), gone: Duration::from_secs(60) };
/// Between two looks whether it is back.
const LOOK_PAUSE: Duration = Duration::from_secs(1);

/// Which log is followed.
pub struct Followed {
    /// Asks for all of it, of the newest attempt.
    pub request: Request,
    /// Which attempt is wanted instead.
    pub attempt: Option<u32>,
    /// The command that follows it again.
    pub again: String,
}

/// How long a server is waited for that was there.
struct Patience {
    /// That lets a stream be open and says nothing: its machine may have vanished, which tells nobody.
    silent: Duration,
    /// That is gone.
    gone: Duration,
}

/// Prints a log to its end; how many bytes there were.
pub fn follow(client: &Client, followed: Followed, terminal: &Terminal) -> Result<usize, Failure> {
    let mut following = Following::new(followed, USUAL, terminal);
    let ended = following.listen_on(client);
    let bytes = following.printer.end()?;
    ended.map(|()| bytes)
}

struct Following<'a> {
    followed: Followed,
    patience: Patience,
    /// Where what is not printed yet begins.
    from_byte: u64,
    /// Whether the server has ever said anything: one that never answered did not go away.
    heard: bool,
    /// Since when it is away.
    gone: Option<Instant>,
    printer: Printer<'a>,
}

impl Following<'_> {
    fn new(followed: Followed, patience: Patience, terminal: &Terminal) -> Following<'_> {
        let printer = Printer::new(terminal);
        Following { followed, patience, from_byte: 0, heard: false, gone: None, printer }
    }

    fn listen_on(&mut self, client: &Client) -> Result<(), Failure> {
        loop {
            let cut = match self.listen(client) {
                Ok(Some(ended)) => return ended,
                Ok(None) => None,
                Err(failure) if failure.is_passing() && self.heard => Some(failure),
                Err(failure) => return Err(failure),
            };
            if self.gone.get_or_insert_with(Instant::now).elapsed() >= self.patience.gone {
                return Err(self.stayed_away(cut));
            }
            std::thread::park_timeout(LOOK_PAUSE);
        }
    }

    /// Prints what one stream brings; how the log ended, if the stream has come to that.
    fn listen(&mut self, client: &Client) -> Result<Option<Result<(), Failure>>, Failure> {
        let Followed { request, attempt, .. } = &self.followed;
        let request = request.clone().with("attempt", *attempt).with("from_byte", Some(self.from_byte));
        let (mut events, mut ended) = (0, None);
        client.follow(&request.patient(self.patience.silent), |kind, data| {
            (self.heard, events) = (true, events + 1);
            // A server speaks before it has looked at the log: its first `alive` may be all that it can do.
            if kind == "log" || events > 1 {
                self.gone = None;
            }
            let data = || serde_json::from_str::<Value>(data).unwrap_or_default();
            match kind {
                "log" => self.piece(&data())?,
                "end" => ended = Some(Ok(())),
                "error" => ended = Some(Err(self.unreadable(&data()))),
                _ => {}
            }
            Ok(if ended.is_some() { Next::Enough } else { Next::More })
        })?;
        Ok(ended)
    }

    fn piece(&mut self, piece: &Value) -> Result<(), Failure> {
        self.printer.piece(text(piece, "text").as_bytes())?;
        self.from_byte = piece["next"].as_u64().unwrap_or(self.from_byte);
        // The place is one in this attempt's log; another may be the newest by the time that it is asked for again.
        let attempt = piece["attempt"].as_u64().and_then(|attempt| attempt.try_into().ok());
        self.followed.attempt = attempt.or(self.followed.attempt);
        Ok(())
    }

    /// The server is there and says itself that it cannot go on.
    fn unreadable(&self, error: &Value) -> Failure {
        let failure = Failure::new(Exit::Unavailable, "the server cannot read the log");
        failure.why(text(error, "message")).hint(self.again("the server can read it"))
    }

    fn stayed_away(&self, cut: Option<Failure>) -> Failure {
        let cut = cut.unwrap_or_else(|| Failure::new(Exit::Unavailable, "the server ended the stream"));
        let failure = cut.of("the log was cut off before its end").exiting(Exit::Unavailable);
        failure.hint(self.again("the server is there"))
    }

    fn again(&self, once: &str) -> String {
        format!("follow it again once {once}: `{}`", self.followed.again)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::sync::mpsc::channel;

    use super::*;

    const BRIEF: Patience = Patience { silent: ANSWERS_WITHIN, gone: LOOK_PAUSE };
    /// Far more than an answer takes on a loaded machine.
    const ANSWERS_WITHIN: Duration = Duration::from_secs(120);
    const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";

    /// Something that listens, and its address.
    fn listener() -> (TcpListener, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        (listener, base)
    }

    fn followed() -> Followed {
        let again = "towpath log 1 unit -f".to_owned();
        Followed { request: Request::get(&["follow"]), attempt: None, again }
    }

    /// Follows what a server sends that gives one answer after the other, and is gone then; what it was asked for.
    fn follow_answers(answers: &[&'static str]) -> (Result<(), Failure>, u64, Vec<String>) {
        let (listener, base) = listener();
        let sent = answers.to_vec();
        let (tell, asked) = channel();
        std::thread::spawn(move || {
            for answer in sent {
                let mut stream = listener.accept().unwrap().0;
                let head = BufReader::new(stream.try_clone().unwrap()).lines().map(Result::unwrap);
                let head: Vec<String> = head.take_while(|line| !line.is_empty()).collect();
                tell.send(head[0].clone()).unwrap();
                write!(stream, "{HEAD}{answer}").unwrap();
            }
        });
        let terminal = Terminal::detect(true);
        let mut following = Following::new(followed(), BRIEF, &terminal);
        let ended = following.listen_on(&Client::new(base, None).unwrap());
        (ended, following.from_byte, asked.try_iter().collect())
    }

    const BEGUN: &str =
        "event: alive\ndata: \n\nevent: log\ndata: {\"text\":\"begun\\n\",\"attempt\":2,\"next\":6}\n\n";

    #[test]
    fn a_stream_without_an_end_is_asked_for_from_where_it_stopped() {
        let rest =
            "event: log\ndata: {\"text\":\"over\\n\",\"attempt\":2,\"next\":11}\n\nevent: end\ndata: 11\n\n";
        let (ended, bytes, asked) = follow_answers(&[BEGUN, rest]);
        assert!(ended.is_ok() && bytes == 11);
        let expected =
            ["GET /api/v1/follow?from_byte=0 HTTP/1.1", "GET /api/v1/follow?attempt=2&from_byte=6 HTTP/1.1"];
        assert_eq!(asked, expected);
    }

    #[test]
    fn a_server_that_stays_away_is_not_taken_for_the_end_of_the_log() {
        let (ended, bytes, _) = follow_answers(&[BEGUN]);
        let failure = ended.unwrap_err().record();
        assert_eq!((failure["error"]["exit"].as_u64(), bytes), (Some(7), 6), "{failure}");
        assert_eq!(failure["error"]["what"], "the log was cut off before its end");
        assert!(failure["error"]["hint"].as_str().unwrap().contains("`towpath log 1 unit -f`"), "{failure}");
    }

    #[test]
    fn a_server_that_only_says_that_it_is_there_is_not_asked_for_ever() {
        let alive = ["event: alive\ndata: \n\n"; 10];
        let (ended, _, asked) = follow_answers(&alive);
        let failure = ended.unwrap_err().record();
        assert_eq!(
            (failure["error"]["exit"].as_u64(), asked.len() < alive.len()),
            (Some(7), true),
            "{failure}"
        );
        assert_eq!(failure["error"]["why"], "the server ended the stream");
    }

    #[test]
    fn a_server_that_cannot_read_the_log_is_not_asked_again() {
        let broken = "event: alive\ndata: \n\nevent: error\ndata: {\"message\":\"the disk says no\"}\n\n";
        let (ended, bytes, asked) = follow_answers(&[BEGUN, broken, BEGUN]);
        let failure = ended.unwrap_err().record();
        assert_eq!((failure["error"]["exit"].as_u64(), bytes, asked.len()), (Some(7), 6, 2), "{failure}");
        assert_eq!(failure["error"]["why"], "the disk says no");
        assert!(failure["error"]["hint"].as_str().unwrap().contains("`towpath log 1 unit -f`"), "{failure}");
    }

    /// As a machine without power does: the connection stays open, and another one is not answered.
    #[test]
    fn a_server_that_falls_silent_has_gone() {
        let (listener, base) = listener();
        let (tell, ended) = channel();
        std::thread::spawn(move || {
            let terminal = Terminal::detect(true);
            let patience = Patience { silent: LOOK_PAUSE, ..BRIEF };
            let mut following = Following::new(followed(), patience, &terminal);
            // It was there before: on a loaded machine its first word can come after the short patience of this test.
            following.heard = true;
            tell.send(following.listen_on(&Client::new(base, None).unwrap())).unwrap();
        });
        let mut stream = listener.accept().unwrap().0;
        // Whoever has lost patience by then has closed it.
        let _ = write!(stream, "{HEAD}{BEGUN}");
        let ended = ended.recv_timeout(ANSWERS_WITHIN).expect("a silent server is not waited for");
        let failure = ended.unwrap_err().record();
        assert_eq!(failure["error"]["exit"], 7, "{failure}");
        assert!(failure["error"]["why"].as_str().unwrap().contains("timeout"), "{failure}");
    }
}
