//! Servers that a test starts for itself. They end with the test.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A server in a folder of its own.
#[derive(Debug)]
pub(crate) struct Server {
    folder: TempDir,
    port: u16,
    settings: Vec<String>,
    process: Option<Child>,
}

impl Server {
    /// A server with these settings, such as `--appendonly yes`.
    pub(crate) fn start(settings: &[&str]) -> Self {
        Self::start_on(free_port(), settings)
    }

    pub(crate) fn start_on(port: u16, settings: &[&str]) -> Self {
        let folder = TempDir::new().unwrap();
        let settings = settings.iter().map(ToString::to_string).collect();
        let mut server = Self { folder, port, settings, process: None };
        server.resume();
        server
    }

    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address())
    }


    /// Ends it as a crash does.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Starts it again, with what is in its folder.
    pub(crate) fn resume(&mut self) {
        let log = std::fs::File::create(self.folder.path().join("log")).unwrap();
        let process = Command::new(program("redis-server"))
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", ""])
            .arg("--dir")
            .arg(self.folder.path())
            .args(["--enable-debug-command", "yes", "--daemonize", "no"])
            .args(&self.settings)
            .stdin(Stdio::null())
            .stdout(log)
            .spawn()
            .expect("redis-server is on this machine");
        self.process = Some(process);
        let start = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(start.elapsed() < Duration::from_secs(60), "redis-server does not start");
            std::thread::yield_now();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn program(name: &str) -> PathBuf {
    let found =
        ["/usr/bin", "/usr/local/bin", "/usr/sbin"].map(|folder| PathBuf::from(folder).join(name));
    found.into_iter().find(|path| path.exists()).unwrap_or_else(|| name.into())
}

pub(crate) fn free_port() -> u16 {
    // A node of a cluster listens on its port and on that plus 10,000.
    loop {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        if port < 55_000 {
            return port;
        }
    }
}
