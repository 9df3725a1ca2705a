//! A Redis server behind a network that can be cut.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::failover::proxy::Proxy;
use crate::failover::server::Server;
use crate::failover::signal;
use crate::failover::trial::Fault;
use crate::free_port::free_port;

/// Far longer than anything takes, even where everything is slow.
const PATIENCE: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(50);

/// What a replica sends before it follows, and nobody else.
pub(crate) const REPLICATION: &str = "REPLCONF";

/// A server. Clients, replicas and sentinels reach it through its front.
#[derive(Debug)]
pub(crate) struct Node {
    server: Mutex<Server>,
    pub(crate) front: Proxy,
    /// The process, while it is stopped.
    stopped: Mutex<Option<u32>>,
}

impl Node {
    /// A server with these settings, which may name the port of its front.
    pub(crate) async fn start(settings: impl AsyncFnOnce(u16, u16) -> Vec<String>) -> Self {
        let port = free_port();
        let front = Proxy::to(port).await;
        let settings = settings(port, front.port).await;
        let settings: Vec<&str> = settings.iter().flat_map(|it| it.split(' ')).collect();
        let server = Mutex::new(Server::start_on(port, &settings));
        Self { server, front, stopped: Mutex::default() }
    }

    /// The URL of the server itself, around its front.
    pub(crate) fn url(&self) -> String {
        self.server.lock().unwrap().url()
    }

    /// Asks the server itself, whatever its network does.
    pub(crate) fn says(&self, command: &[&str]) -> String {
        assert!(!self.is_stopped(), "it would not answer");
        self.server.lock().unwrap().says(command).trim().to_owned()
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.lock().unwrap().is_some()
    }

    /// Lets the process fail, or cuts its front.
    pub(crate) fn inflict(&self, fault: Fault) {
        match fault {
            Fault::Kill => self.server.lock().unwrap().kill(),
            Fault::Stop => {
                let info = self.says(&["INFO", "server"]);
                let process = info.lines().find_map(|line| line.strip_prefix("process_id:"));
                let process: u32 = process.unwrap().trim().parse().unwrap();
                signal("STOP", &[process]);
                *self.stopped.lock().unwrap() = Some(process);
            }
            Fault::Cut => self.front.cut(true),
        }
    }

    /// Undoes that. What was killed starts again, empty.
    pub(crate) fn mend(&self, fault: Fault) {
        match fault {
            Fault::Kill => self.server.lock().unwrap().resume(),
            Fault::Stop => {
                let process = self.stopped.lock().unwrap().take();
                signal("CONT", &process.into_iter().collect::<Vec<_>>());
            }
            Fault::Cut => {}
        }
        self.front.cut(false);
    }
}

/// Looks again and again.
pub(crate) async fn patiently<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let waiting = async {
        loop {
            match look() {
                Some(found) => return found,
                None => sleep(PAUSE).await,
            }
        }
    };
    timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("no sign of {what}"))
}
