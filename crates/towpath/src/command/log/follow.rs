//! Following a log while its job writes, over the server's own end: a job goes on while another program takes the
//! server's place.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::Printer;
use crate::command::answer::text;
use crate::failure::{Exit, Failure};
use crate::remote::{Client, Next, Request};
use crate::terminal::Terminal;

/// How long a server that was there and is gone is waited for. One that is replaced is back within seconds.
const BACK_WITHIN: Duration = Duration::from_secs(60);
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

/// Prints a log to its end; how many bytes there were.
pub fn follow(client: &Client, followed: Followed, terminal: &Terminal) -> Result<usize, Failure> {
    let printer = Printer::new(terminal);
    let mut following = Following { followed, from_byte: 0, heard: false, gone: None, printer };
    let ended = following.listen_on(client, BACK_WITHIN);
    let bytes = following.printer.end()?;
    ended.map(|()| bytes)
}

struct Following<'a> {
    followed: Followed,
    /// Where what is not printed yet begins.
    from_byte: u64,
    /// Whether the server has ever said anything: one that never answered did not go away.
    heard: bool,
    /// Since when it is away.
    gone: Option<Instant>,
    printer: Printer<'a>,
}

impl Following<'_> {
    fn listen_on(&mut self, client: &Client, patience: Duration) -> Result<(), Failure> {
        loop {
            let cut = match self.listen(client) {
                Ok(Next::Enough) => return Ok(()),
                Ok(Next::More) => None,
                Err(failure) if failure.is_passing() && self.heard => Some(failure),
                Err(failure) => return Err(failure),
            };
            if self.gone.get_or_insert_with(Instant::now).elapsed() >= patience {
                return Err(self.stayed_away(cut));
            }
            std::thread::park_timeout(LOOK_PAUSE);
        }
    }

    /// Prints what one stream brings.
    fn listen(&mut self, client: &Client) -> Result<Next, Failure> {
        let Followed { request, attempt, .. } = &self.followed;
        let request = request.clone().with("attempt", *attempt).with("from_byte", Some(self.from_byte));
        client.follow(&request, |kind, data| {
            (self.heard, self.gone) = (true, None);
            match kind {
                "log" => self.piece(&serde_json::from_str(data).unwrap_or_default())?,
                "end" => return Ok(Next::Enough),
                _ => {}
            }
            Ok(Next::More)
        })
    }

    fn piece(&mut self, piece: &Value) -> Result<(), Failure> {
        self.printer.piece(text(piece, "text").as_bytes())?;
        self.from_byte = piece["next"].as_u64().unwrap_or(self.from_byte);
        // The place is one in this attempt's log; another may be the newest by the time that it is asked for again.
        let attempt = piece["attempt"].as_u64().and_then(|attempt| attempt.try_into().ok());
        self.followed.attempt = attempt.or(self.followed.attempt);
        Ok(())
    }

    fn stayed_away(&self, cut: Option<Failure>) -> Failure {
        let what = "the server ended the stream; the job goes on";
        let failure = cut.map_or_else(|| Failure::new(Exit::Unavailable, what), |cut| cut.of(what));
        failure.hint(format!("follow it again once the server is there: `{}`", self.followed.again))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::sync::mpsc::channel;

    use super::*;

    /// Follows what a server sends that gives one answer after the other, and is gone then; what it was asked for.
    fn follow_answers(answers: &[&'static str]) -> (Result<(), Failure>, u64, Vec<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let sent = answers.to_vec();
        let (tell, asked) = channel();
        std::thread::spawn(move || {
            for answer in sent {
                let mut stream = listener.accept().unwrap().0;
                let head = BufReader::new(stream.try_clone().unwrap()).lines().map(Result::unwrap);
                let head: Vec<String> = head.take_while(|line| !line.is_empty()).collect();
                let kind = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
                tell.send(head[0].clone()).unwrap();
                write!(stream, "{kind}{answer}").unwrap();
            }
        });
        let terminal = Terminal::detect(true);
        let again = "towpath log 1 unit -f".to_owned();
        let followed = Followed { request: Request::get(&["follow"]), attempt: None, again };
        let printer = Printer::new(&terminal);
        let mut following = Following { followed, from_byte: 0, heard: false, gone: None, printer };
        let ended = following.listen_on(&Client::new(base, None).unwrap(), LOOK_PAUSE);
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
        assert_eq!(failure["error"]["what"], "the server ended the stream; the job goes on");
        assert!(failure["error"]["hint"].as_str().unwrap().contains("`towpath log 1 unit -f`"), "{failure}");
    }
}
