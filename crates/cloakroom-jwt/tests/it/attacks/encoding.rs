//! Base64url that is not canonical, segments too few and too many, other serializations
//! (RFC 7515 §2, §5.2, §7).

use serde_json::json;

use super::SEGMENTS;
use crate::bad_input::Bench;
use crate::support::{accepts, b64, claims, header, refuses, signed_segments};

const HEADER: &str = "Malformed(the header is not canonical base64url)";
const CLAIMS: &str = "Malformed(the claims are not canonical base64url)";
const SIGNATURE: &str = "Malformed(the signature is not canonical base64url)";

/// Other ways to write a segment, each of which some decoder takes. None has a dot.
fn misspelled(segment: &str) -> Vec<(&'static str, String)> {
    let (start, end) = segment.split_at(segment.len() / 2);
    let last = segment.chars().last().unwrap();
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let bits = alphabet.find(last).unwrap() | 1;
    let mut all = vec![
        ("a newline at the end", format!("{segment}\n")),
        ("CRLF at the end", format!("{segment}\r\n")),
        ("a blank at the end", format!("{segment} ")),
        ("a tab at the start", format!("\t{segment}")),
        ("a blank inside", format!("{start} {end}")),
        ("a newline inside", format!("{start}\n{end}")),
        ("CRLF inside", format!("{start}\r\n{end}")),
        ("folded like MIME", format!("{start}\r\n {end}")),
        ("NUL at the end", format!("{segment}\0")),
        ("NUL inside", format!("{start}\0{end}")),
        ("padding", format!("{segment}=")),
        ("padding of two", format!("{segment}==")),
        ("padding of four", format!("{segment}====")),
        ("padding inside", format!("{start}={end}")),
        ("padding at the start", format!("={segment}")),
        ("percent-encoded padding", format!("{segment}%3D")),
        ("a standard character", format!("{start}+{end}")),
        ("a standard character", format!("{start}/{end}")),
        ("a character of IMAP", format!("{start},{end}")),
        ("a tilde", format!("{segment}~")),
        ("quotes", format!("\"{segment}\"")),
        ("a soft hyphen", format!("{start}\u{ad}{end}")),
        ("a zero-width blank", format!("{start}\u{200b}{end}")),
        ("a byte order mark", format!("\u{feff}{segment}")),
        ("a full-width letter", format!("{start}\u{ff21}{end}")),
        ("the Kelvin sign", format!("{start}\u{212a}{end}")),
    ];
    // Bits that no byte needs: the last character has four of them, two, or none.
    if !segment.len().is_multiple_of(4) {
        let other = &alphabet[bits..=bits];
        all.push(("trailing bits", format!("{}{other}", &segment[..segment.len() - 1])));
    }
    all
}

#[test]
fn spellings_that_are_not_canonical() {
    let bench = Bench::new();
    // All remainders: with them the number of bits in the last character that nothing needs.
    for blanks in 0..3 {
        let head = header(&bench.key).to_string() + &" ".repeat(blanks);
        let body = claims().to_string() + &" ".repeat(blanks);
        let (head, body) = (b64(head), b64(body));
        accepts(&bench.keys, "as it should be", &signed_segments(&bench.key, &head, &body));
        // Signed over what stands there, so that nothing but the spelling is wrong.
        for (what, bad) in misspelled(&head) {
            refuses(&bench.keys, what, &signed_segments(&bench.key, &bad, &body), HEADER);
        }
        for (what, bad) in misspelled(&body) {
            refuses(&bench.keys, what, &signed_segments(&bench.key, &head, &bad), CLAIMS);
        }
    }
    let good = bench.good();
    let (input, signature) = good.rsplit_once('.').unwrap();
    for (what, bad) in misspelled(signature) {
        refuses(&bench.keys, what, &format!("{input}.{bad}"), SIGNATURE);
    }
}

#[test]
fn the_other_alphabet() {
    let bench = Bench::new();
    // `???` and `>>>` need the characters in which the alphabets differ.
    let text = |shift: usize| format!("{}???>>>~~~", " ".repeat(shift));
    let mut all = claims();
    for shift in 0..3 {
        all[format!("pad{shift}")] = json!(text(shift));
    }
    let (head, body) = (b64(header(&bench.key).to_string()), b64(all.to_string()));
    assert!(body.contains('_'), "or there is nothing to swap");
    accepts(&bench.keys, "url", &signed_segments(&bench.key, &head, &body));
    let standard = body.replace('-', "+").replace('_', "/");
    refuses(&bench.keys, "standard", &signed_segments(&bench.key, &head, &standard), CLAIMS);
}

#[test]
fn more_or_fewer_segments() {
    let bench = Bench::new();
    let good = bench.good();
    let parts: Vec<&str> = good.split('.').collect();
    let [head, body, signature] = parts[..] else { panic!("three segments") };
    let tag = b64([0; 16]);
    for (what, jwt, expected) in [
        ("one", head.to_owned(), SEGMENTS),
        ("two", format!("{head}.{body}"), SEGMENTS),
        ("four", format!("{good}.{signature}"), SEGMENTS),
        ("four, empty", format!("{good}."), SEGMENTS),
        ("five (JWE)", format!("{head}.{body}.{tag}.{body}.{tag}"), SEGMENTS),
        ("five (JWE dir)", format!("{head}..{tag}.{body}.{tag}"), SEGMENTS),
        ("six", format!("{head}.{body}.{tag}.{body}.{tag}.{signature}"), SEGMENTS),
        ("a thousand", format!("{head}{}", ".AA".repeat(999)), SEGMENTS),
        ("dots alone", ".".repeat(4096), SEGMENTS),
        ("nothing", String::new(), SEGMENTS),
        ("detached payload (RFC 7515 appendix F)", format!("{head}..{signature}"), SEGMENTS),
        ("empty header", format!(".{body}.{signature}"), SEGMENTS),
        ("empty signature", format!("{head}.{body}."), SEGMENTS),
        ("escaped dots", good.replace('.', "%2E"), SEGMENTS),
        ("full-width dots", good.replace('.', "\u{ff0e}"), SEGMENTS),
        ("with its scheme", format!("Bearer {good}"), HEADER),
        ("two of them", format!("{good},{good}"), SEGMENTS),
        ("two of them, a blank between", format!("{good} {good}"), SEGMENTS),
        ("quoted", format!("\"{good}\""), HEADER),
        ("disclosures (SD-JWT)", format!("{good}~"), SIGNATURE),
        ("disclosures (SD-JWT)", format!("{good}~{body}~"), SIGNATURE),
        ("a URL", format!("https://orders.example/?access_token={good}"), SEGMENTS),
        ("a fragment", format!("{good}#"), SIGNATURE),
        ("the header twice", format!("{head}{head}.{body}.{signature}"), "Malformed("),
    ] {
        refuses(&bench.keys, what, &jwt, expected);
    }
    accepts(&bench.keys, "three", &good);
}

#[test]
fn json_serializations() {
    let bench = Bench::new();
    let good = bench.good();
    let parts: Vec<&str> = good.split('.').collect();
    let [head, body, signature] = parts[..] else { panic!("three segments") };
    let kid = bench.key.kid();
    let flat = json!({"protected": head, "payload": body, "signature": signature});
    let general = json!({
        "payload": body,
        "signatures": [{"protected": head, "signature": signature}],
    });
    let unprotected = json!({
        "header": {"alg": "ES256", "kid": kid, "typ": "at+jwt"},
        "payload": body, "signature": signature,
    });
    for it in [flat, general, unprotected] {
        refuses(&bench.keys, "JSON", &it.to_string(), SEGMENTS);
        // Whoever looks for dots first finds two of them.
        let dotted = format!("{{\"a\":\"..\",{}", &it.to_string()[1..]);
        refuses(&bench.keys, "JSON with dots", &dotted, SEGMENTS);
        let dotted = format!("{{\"a\":\".b.\",{}", &it.to_string()[1..]);
        refuses(&bench.keys, "JSON with dots", &dotted, HEADER);
        // Both at once (CVE-2022-3102: the compact form with JSON around it).
        let mixed = format!("{{\"\":\"{good}\",{}", &it.to_string()[1..]);
        refuses(&bench.keys, "JSON around a good token", &mixed, HEADER);
    }
}

#[test]
fn every_piece_and_every_longer_token() {
    let bench = Bench::new();
    let good = bench.good();
    for end in 0..good.len() {
        assert!(bench.verify(&good[..end]).is_err(), "cut at {end}");
        assert!(bench.verify(&good[end + 1..]).is_err(), "started after {end}");
        assert!(
            bench.verify(&(good[..end].to_owned() + &good[end + 1..])).is_err(),
            "hole at {end}"
        );
    }
    for more in (0..=127_u8).map(char::from) {
        assert!(bench.verify(&format!("{good}{more}")).is_err(), "{more:?} at the end");
        assert!(bench.verify(&format!("{more}{good}")).is_err(), "{more:?} at the start");
    }
}
