//! A network between client and server that delays, goes silent and breaks.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use url::Url;

use super::database::eventually;

/// Listens on a port of its own and passes on what comes. Ends when it is dropped.
pub struct Proxy {
    address: SocketAddr,
    network: Arc<Network>,
    listening: JoinHandle<()>,
}

#[derive(Clone, Copy)]
enum Direction {
    Requests,
    Answers,
}

struct Network {
    server: Mutex<(String, u16)>,
    delay: Duration,
    // Whether bytes are held back, by direction.
    silent: [watch::Sender<bool>; 2],
    // Counted up to break all connections that there are.
    cuts: watch::Sender<usize>,
    opened: AtomicUsize,
    // So many connections were lost on the way: they stay silent for ever.
    lost: AtomicUsize,
    requests: AtomicUsize,
    round_trips: AtomicUsize,
    answered: AtomicUsize,
    // Which of the answers to come is lost; zero for none.
    losing: AtomicUsize,
    // What the server is told beside what clients say, and how many answers to that are to come.
    slipped_in: watch::Sender<Vec<u8>>,
    swallowing: AtomicUsize,
}

impl Proxy {
    /// Between the caller and the server of this URL; `delay` is added in each direction.
    pub async fn start(server: &Url, delay: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let network = Arc::new(Network {
            server: Mutex::new(address_of(server)),
            delay,
            silent: [watch::Sender::new(false), watch::Sender::new(false)],
            cuts: watch::Sender::new(0),
            opened: AtomicUsize::new(0),
            lost: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
            round_trips: AtomicUsize::new(0),
            answered: AtomicUsize::new(0),
            losing: AtomicUsize::new(0),
            slipped_in: watch::Sender::new(Vec::new()),
            swallowing: AtomicUsize::new(0),
        });
        let shared = Arc::clone(&network);
        let listening = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let number = shared.opened.fetch_add(1, SeqCst);
                let network = Arc::clone(&shared);
                let server = network.server.lock().unwrap().clone();
                tokio::spawn(async move {
                    let mut cut = network.cuts.subscribe();
                    if let Ok(server) = TcpStream::connect(server).await {
                        tokio::select! {
                            biased;
                            _ = cut.changed() => {}
                            () = network.connect(number, client, server) => {}
                        }
                    }
                });
            }
        });
        Self { address, network, listening }
    }

    /// `url`, by way of this proxy.
    pub fn url(&self, url: &Url) -> Url {
        let mut url = url.clone();
        url.set_host(Some("127.0.0.1")).unwrap();
        url.set_port(Some(self.address.port())).unwrap();
        url
    }

    /// Has connections from now on go to another server, as an address that is moved does.
    pub fn redirect(&self, server: &Url) {
        *self.network.server.lock().unwrap() = address_of(server);
    }

    /// The connections that were opened so far.
    pub fn opened(&self) -> usize {
        self.network.opened.load(SeqCst)
    }

    /// How often a client has written so far: a statement that is prepared already is one.
    pub fn requests(&self) -> usize {
        self.network.requests.load(SeqCst)
    }

    /// How often a client has waited for the server so far, of all statements that it sent.
    pub fn round_trips(&self) -> usize {
        self.network.round_trips.load(SeqCst)
    }

    /// How many bytes the server has answered so far.
    pub fn answered(&self) -> usize {
        self.network.answered.load(SeqCst)
    }

    /// Holds back what the server answers.
    pub fn hold_answers(&self) {
        self.network.silent[Direction::Answers as usize].send_replace(true);
    }

    /// Holds back everything, in both directions.
    pub fn go_silent(&self) {
        self.network.silent[Direction::Requests as usize].send_replace(true);
        self.hold_answers();
    }

    /// Breaks all connections in place of the n-th answer from now: the server has done by then what
    /// it was told.
    pub fn lose_answer(&self, nth: usize) {
        self.network.losing.store(nth, SeqCst);
    }

    /// Whether the answer was lost that was to be lost; if not, none is any more.
    pub fn has_lost(&self) -> bool {
        self.network.losing.swap(0, SeqCst) == 0
    }

    /// Runs a statement in the session of the one connection that there is, and keeps the answer from
    /// the client: somebody else's statement, as it comes through a pooler that mixes up sessions.
    pub async fn slip_in(&self, statement: &str) {
        let mut message = vec![b'Q'];
        message.extend(u32::try_from(statement.len() + 5).unwrap().to_be_bytes());
        message.extend(statement.as_bytes());
        message.push(0);
        self.network.swallowing.store(1, SeqCst);
        self.network.slipped_in.send_replace(message);
        eventually("it is answered", async || self.network.swallowing.load(SeqCst) == 0).await;
    }

    /// Lets through what was held back.
    pub fn resume(&self) {
        for silent in &self.network.silent {
            silent.send_replace(false);
        }
    }

    /// Lets new connections through; those that were opened so far are lost, without a sign.
    pub fn resume_for_new_ones(&self) {
        self.network.lost.store(self.opened(), SeqCst);
        self.resume();
    }

    /// Breaks all connections; what was held back is lost. New ones are taken.
    pub fn cut(&self) {
        self.network.cut();
    }
}

fn address_of(server: &Url) -> (String, u16) {
    (server.host_str().unwrap().to_owned(), server.port().unwrap_or(5432))
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listening.abort();
        self.cut();
    }
}

impl Network {
    fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Whether the client gets to see what the server sent.
    fn is_passed_on(&self, answer: &[u8]) -> bool {
        let counted = |left: &AtomicUsize| {
            ends_an_answer(answer).then(|| left.fetch_update(SeqCst, SeqCst, |n| n.checked_sub(1)))
        };
        if self.swallowing.load(SeqCst) > 0 {
            counted(&self.swallowing);
            return false;
        }
        match counted(&self.losing) {
            Some(Ok(1)) => {
                self.cut();
                false
            }
            _ => true,
        }
    }

    async fn connect(&self, number: usize, client: TcpStream, server: TcpStream) {
        for socket in [&client, &server] {
            socket.set_nodelay(true).unwrap();
        }
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        tokio::join!(
            self.pass_on(number, Direction::Requests, from_client, to_server),
            self.pass_on(number, Direction::Answers, from_server, to_client),
        );
    }

    /// Bytes in flight don't wait for each other: the delay is one of time, not of throughput.
    async fn pass_on(
        &self,
        number: usize,
        which: Direction,
        mut from: OwnedReadHalf,
        mut to: OwnedWriteHalf,
    ) {
        let (sender, mut receiver) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
        let mut silent = self.silent[which as usize].subscribe();
        let mut slipped_in = self.slipped_in.subscribe();
        let reading = async move {
            let mut buffer = vec![0; 16 * 1024];
            let mut frontend = Frontend::default();
            while let Ok(read @ 1..) = from.read(&mut buffer).await {
                if matches!(which, Direction::Requests) {
                    self.requests.fetch_add(1, SeqCst);
                    let waits = frontend.waits(&buffer[..read]);
                    self.round_trips.fetch_add(waits, SeqCst);
                } else {
                    self.answered.fetch_add(read, SeqCst);
                    if !self.is_passed_on(&buffer[..read]) {
                        continue;
                    }
                }
                let due = Instant::now() + self.delay;
                if sender.send((due, buffer[..read].to_vec())).is_err() {
                    break;
                }
            }
        };
        let writing = async move {
            loop {
                let (due, bytes) = tokio::select! {
                    sent = receiver.recv() => match sent {
                        Some(sent) => sent,
                        None => break,
                    },
                    Ok(()) = slipped_in.changed(), if matches!(which, Direction::Requests) => {
                        (Instant::now(), slipped_in.borrow_and_update().clone())
                    }
                };
                tokio::time::sleep_until(due).await;
                let resumed = silent.wait_for(|silent| !silent).await.is_ok();
                if number < self.lost.load(SeqCst) {
                    return std::future::pending().await;
                }
                if !resumed || to.write_all(&bytes).await.is_err() {
                    break;
                }
            }
            _ = to.shutdown().await;
        };
        tokio::join!(reading, writing);
    }
}

/// Whether this is the end of what the server answers to a statement: ReadyForQuery.
fn ends_an_answer(bytes: &[u8]) -> bool {
    matches!(bytes, [.., b'Z', 0, 0, 0, 5, b'I' | b'T' | b'E'])
}

/// What one client sends, taken apart into messages.
#[derive(Default)]
struct Frontend {
    // Of the next message, as far as it has come.
    header: Vec<u8>,
    // What is still to come of the last one.
    body: usize,
    started: bool,
}

impl Frontend {
    /// After how many of the messages that begin here the client waits for the server: Sync, Query,
    /// and the end of a COPY.
    ///
    /// <https://www.postgresql.org/docs/current/protocol-message-formats.html>
    fn waits(&mut self, mut bytes: &[u8]) -> usize {
        let mut waits = 0;
        while let Some((byte, rest)) = bytes.split_first() {
            if self.body > 0 {
                let skipped = self.body.min(bytes.len());
                self.body -= skipped;
                bytes = &bytes[skipped..];
                continue;
            }
            self.header.push(*byte);
            bytes = rest;
            // Until the startup message, a length and a code; then a type and a length.
            let (length_at, size) = if self.started { (1, 5) } else { (0, 8) };
            if self.header.len() < size {
                continue;
            }
            let header = std::mem::take(&mut self.header);
            let number = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().unwrap());
            self.body = length_at + number(length_at) as usize - size;
            if self.started {
                waits += usize::from(matches!(header[0], b'S' | b'Q' | b'c' | b'f'));
            } else {
                self.started = number(4) == 3 << 16;
            }
        }
        waits
    }
}
