//! What may be configured.

use clap::{CommandFactory, Parser};

use super::*;
use crate::Settings;

const MINIMAL: [&str; 7] = [
    "gateway",
    "--issuer",
    "https://as.example",
    "--audience",
    "https://orders.example",
    "--service",
    "http://orders.internal:9100",
];

fn parse(more: &[&str]) -> Result<Settings, clap::Error> {
    Settings::try_parse_from(MINIMAL.iter().chain(more))
}

#[test]
fn the_flags_are_sound() {
    Settings::command().debug_assert();
    let settings = parse(&["--head-timeout", "0.5", "--proxy", "10.0.0.0/8,::1"]).unwrap();
    assert_eq!(settings.timeouts().head, Duration::from_millis(500));
    assert_eq!(settings.rules().proxies.len(), 2);
    assert!(parse(&["--forward", "X-One,x-two"]).unwrap().allowed().is_ok());
    assert!(parse(&["--forward", "x two"]).unwrap().allowed().is_err());
    for bad in [
        &["--head-timeout", "-1"][..],
        &["--head-timeout", "soon"],
        &["--proxy", "10.0.0.0/99"],
        // A cookie without an origin would let in every page, or none.
        &["--cookie", "__Host-token"],
    ] {
        assert!(parse(bad).is_err(), "{bad:?}");
    }
}

#[tokio::test]
async fn a_service_is_a_host_alone() {
    let tunnels = Tunnels::new(TUNNEL_IDLE, TUNNEL_LIFETIME);
    let proxy = |uri: &'static str| {
        let connector = crate::proxy::tcp(TIMEOUTS.connect);
        let allowed = Allowed::and([]).unwrap();
        Proxy::new(connector, &Uri::from_static(uri), allowed, TIMEOUTS, tunnels.clone())
    };
    for good in ["http://orders.internal", "http://orders.internal:9100/", "http://[::1]:9100"] {
        assert!(proxy(good).is_ok(), "{good}");
    }
    for bad in [
        "https://orders.internal",
        "http://orders.internal/v1",
        "http://user@orders.internal",
        "orders.internal",
        "/",
    ] {
        assert!(proxy(bad).is_err(), "{bad}");
    }
}
