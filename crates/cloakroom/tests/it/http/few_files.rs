//! A server that may have few files open, in a process of its own.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::serve::{METADATA, Served, answer};

const END: Duration = Duration::from_secs(30);

/// This program again, with this test alone. It ends with its standard input.
fn child_with_few_files() -> Child {
    let test = "http::few_files::a_server_out_of_file_descriptors_closes_idle_connections";
    Command::new("sh")
        .args(["-c", "ulimit -n 64; exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env("CLOAKROOM_FEW_FILES", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[tokio::test]
async fn a_server_out_of_file_descriptors_closes_idle_connections() {
    if std::env::var_os("CLOAKROOM_FEW_FILES").is_some() {
        let served = Served::with(|it| it, |server| server.max_connections(10_000)).await;
        println!("ADDRESS {}", served.address);
        std::thread::spawn(|| {
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            std::process::exit(0);
        });
        return std::future::pending().await;
    }
    let mut child = child_with_few_files();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let address = lines.find_map(|line| Some(line.split_once("ADDRESS ")?.1.to_owned())).unwrap();
    let mut idle = Vec::new();
    for _ in 0..80 {
        idle.push(TcpStream::connect(&address).await.unwrap());
    }
    let mut last = TcpStream::connect(&address).await.unwrap();
    last.write_all(METADATA.as_bytes()).await.unwrap();
    let answered = timeout(END, answer(&mut last)).await;
    drop(child.stdin.take());
    child.wait().unwrap();
    assert!(answered.expect("it never has its turn").starts_with("HTTP/1.1 200 "));
}
