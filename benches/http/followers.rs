//! Clients that follow a log with long polls, each with as little work as possible, so that a thousand
//! fit beside the server.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::Failure;
use crate::case::API;
use crate::load::head;
use crate::servers::{Kind, end_with_input};

/// `follow KIND SERVER COUNT`: so many followers of the log of this server. Prints a line when all
/// of them wait for something new; ends with standard input.
pub(crate) fn follow(arguments: &[String]) -> Result<(), Failure> {
    let [kind, server, count] = arguments else {
        return Err("follow needs a kind, a server and a number of followers".into());
    };
    let polls = Polls::of(Kind::parse(kind).ok_or("unknown kind")?);
    let (server, count): (SocketAddr, usize) = (server.parse()?, count.parse()?);
    end_with_input();
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let (waiting, all) = (AtomicUsize::new(0), Notify::new());
        let waiting: &'static AtomicUsize = Box::leak(Box::new(waiting));
        let all: &'static Notify = Box::leak(Box::new(all));
        for _ in 0..count {
            let mut follower = Follower::connect(server, polls).await?;
            tokio::spawn(async move {
                let outcome: Result<(), Failure> = async {
                    follower.catch_up().await?;
                    if waiting.fetch_add(1, Ordering::Relaxed) + 1 == count {
                        all.notify_one();
                    }
                    loop {
                        follower.poll().await?;
                    }
                }
                .await;
                // A fan-out to fewer would be quicker.
                let failure: Option<Box<dyn Error + Send + Sync>> = outcome.err();
                eprintln!("a follower ends: {failure:?}");
                std::process::exit(1);
            });
        }
        if count > 0 {
            all.notified().await;
        }
        println!("ready");
        std::future::pending().await
    })
}

/// What is asked of which server.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Polls {
    /// The revocation log.
    Log,
    /// The bare long poll.
    Bare,
}

impl Polls {
    pub(crate) const fn of(kind: Kind) -> Self {
        if matches!(kind, Kind::LongPoll) { Self::Bare } else { Self::Log }
    }
}

/// One follower.
pub(crate) struct Follower {
    stream: TcpStream,
    polls: Polls,
    authorization: String,
    /// From where on something is new.
    next: String,
    buffer: Vec<u8>,
}

impl Follower {
    pub(crate) async fn connect(server: SocketAddr, polls: Polls) -> io::Result<Self> {
        let stream = TcpStream::connect(server).await?;
        stream.set_nodelay(true)?;
        let credentials = STANDARD.encode(format!("{}:{}", API.id, API.secret));
        Ok(Self {
            stream,
            polls,
            authorization: format!("authorization: Basic {credentials}\r\n"),
            next: if matches!(polls, Polls::Bare) { "0".to_owned() } else { String::new() },
            buffer: Vec::new(),
        })
    }

    /// Reads what there is so far.
    pub(crate) async fn catch_up(&mut self) -> io::Result<()> {
        self.ask(0).await
    }

    /// Waits for something new.
    pub(crate) async fn poll(&mut self) -> io::Result<()> {
        self.ask(30).await
    }

    async fn ask(&mut self, wait: u64) -> io::Result<()> {
        let Self { next, authorization, .. } = &*self;
        let (target, authorization) = match self.polls {
            Polls::Log => (format!("/revocations?after={next}&wait={wait}"), &**authorization),
            Polls::Bare => (format!("/changes?after={next}"), ""),
        };
        let request = format!(
            "GET {target} HTTP/1.1\r\nhost: 127.0.0.1\r\naccept: application/json\r\n\
             {authorization}\r\n"
        );
        self.stream.write_all(request.as_bytes()).await?;
        self.buffer.clear();
        loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if let Some((head, length)) = head(&self.buffer)?
                && self.buffer.len() == head + length
            {
                let body = std::str::from_utf8(&self.buffer[head..]).map_err(io::Error::other)?;
                let next =
                    body.split_once("\"next\":\"").and_then(|(_, rest)| rest.split_once('"'));
                let (next, _) = next.ok_or_else(|| io::Error::other("it says nothing of next"))?;
                next.clone_into(&mut self.next);
                return Ok(());
            }
        }
    }
}
