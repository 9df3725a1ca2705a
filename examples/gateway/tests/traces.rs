//! What is traced: enough to follow a request by, and no token.

use std::sync::Mutex;

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

use super::*;

#[derive(Debug, Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Written {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test(start_paused = true)]
async fn traces_name_the_request_and_show_no_token() {
    let written = Written::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::TRACE)
        .with_ansi(false)
        .with_writer(written.clone())
        .finish();
    // For all threads: what several have of their own, one after the other, gets in each other's
    // way. The other tests' traces are welcome: no token must stand in them, either.
    tracing::subscriber::set_global_default(subscriber).unwrap();

    let mut world = World::new();
    let mut client = world.client();
    let line = "POST /orders?access_token=cr_at_query";
    client.send(&request(line, &["content-length: 4"])).await;
    client.send("body").await;
    let mut service = world.service().await;
    let seen = service.head().await;
    drop(service);
    assert_eq!(client.head().await.status(), 502);
    client.send(&request("GET /", &[]).replace(HANDLE, "cr_at_bad")).await;
    assert_eq!(client.head().await.status(), 401);

    let traces = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
    let id = format!("id=\"{}\"", seen.all("x-request-id")[0]);
    for expected in [id.as_str(), "path=\"/orders\"", "status=502", "a request gets no answer"] {
        assert!(traces.contains(expected), "{expected} is missing in\n{traces}");
    }
    for secret in ["cr_at_", JWT, "access_token"] {
        assert!(!traces.contains(secret), "{secret} stands in\n{traces}");
    }
}
