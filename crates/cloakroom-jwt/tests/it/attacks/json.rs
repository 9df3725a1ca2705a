//! JSON that two parsers read in two ways, or that one of them does not survive (RFC 8725 §2.4,
//! §2.6; RFC 8259).

use serde_json::json;

use super::NO_HEADER;
use crate::bad_input::Bench;
use crate::support::{
    AUDIENCE, NOW, accepts, b64, claims, header, refuses, signed, signed_segments,
};

/// Bytes that are no JSON, or not of one meaning: none depends on what `{…}` is about. `@` stands
/// for the members of a good document.
fn ill_formed() -> Vec<(&'static str, Vec<u8>)> {
    let mut all: Vec<(&'static str, Vec<u8>)> = [
        ("a byte order mark", "\u{feff}{@}"),
        ("a second document", "{@}{@}"),
        ("a second document after a blank", "{@} {@}"),
        ("trailing data", "{@}x"),
        ("trailing NUL", "{@}\0"),
        ("a trailing comma", "{@,}"),
        ("a leading comma", "{,@}"),
        ("two commas", "{@,,\"x\":1}"),
        ("no end", "{@"),
        ("no start", "@}"),
        ("an array around it", "[{@}]"),
        ("a comment", "{@/**/}"),
        ("a comment", "{@}//"),
        ("single quotes", "{@,'x':1}"),
        ("no quotes", "{@,x:1}"),
        ("a number for a name", "{@,1:1}"),
        ("no value", "{@,\"x\":}"),
        ("no colon", "{@,\"x\" 1}"),
        ("NaN", "{@,\"x\":NaN}"),
        ("Infinity", "{@,\"x\":-Infinity}"),
        ("undefined", "{@,\"x\":undefined}"),
        ("True", "{@,\"x\":True}"),
        ("a leading zero", "{@,\"x\":01}"),
        ("a plus", "{@,\"x\":+1}"),
        ("hexadecimal", "{@,\"x\":0x10}"),
        ("half an exponent", "{@,\"x\":1e}"),
        ("no digits before the point", "{@,\"x\":.5}"),
        ("no digits after the point", "{@,\"x\":5.}"),
        ("a minus alone", "{@,\"x\":-}"),
        ("a huge number", "{@,\"x\":1e400}"),
        ("a huge negative number", "{@,\"x\":-1e400}"),
        ("an exponent beyond 64 bits", "{@,\"x\":1e99999999999999999999}"),
        ("a lone high surrogate", "{@,\"x\":\"\\ud800\"}"),
        ("a lone low surrogate", "{@,\"x\":\"\\udc00\"}"),
        ("surrogates in the wrong order", "{@,\"x\":\"\\udc00\\ud800\"}"),
        ("a high surrogate and a letter", "{@,\"x\":\"\\ud800a\"}"),
        ("a lone surrogate in a name", "{@,\"\\ud800\":1}"),
        ("an unknown escape", "{@,\"x\":\"\\x41\"}"),
        ("a short escape", "{@,\"x\":\"\\u41\"}"),
        ("an escaped quote of JavaScript", "{@,\"x\":\"\\'\"}"),
        ("a newline within a string", "{@,\"x\":\"\n\"}"),
        ("a NUL within a string", "{@,\"x\":\"\0\"}"),
        ("a form feed between", "{@,\u{c}\"x\":1}"),
        ("a no-break blank between", "{@,\u{a0}\"x\":1}"),
        ("an unknown member twice", "{@,\"x\":1,\"x\":1}"),
        ("an unknown member twice, once escaped", "{@,\"x\":1,\"\\u0078\":2}"),
        ("an empty name twice", "{@,\"\":1,\"\":2}"),
        ("twice, with a null", "{@,\"x\":1,\"x\":null}"),
        ("twice within", "{@,\"x\":{\"y\":1,\"y\":2}}"),
        ("twice within an array", "{@,\"x\":[{},[{\"y\":1,\"z\":2,\"y\":3}]]}"),
        ("twice within, escaped", "{@,\"x\":{\"y\":1,\"\\u0079\":2}}"),
        ("twice, beyond the basic plane", "{@,\"\u{1f511}\":1,\"\\ud83d\\udd11\":2}"),
        ("a whole second time", "{@,@}"),
    ]
    .map(|(what, text)| (what, text.as_bytes().to_vec()))
    .into();
    for (what, bytes) in [
        ("0xff", &[0xff][..]),
        ("a continuation alone", &[0x80]),
        ("a start alone", &[0xc3]),
        ("an overlong dot", &[0xc0, 0xae]),
        ("an overlong quote", &[0xc0, 0xa2]),
        ("an overlong slash of three", &[0xe0, 0x80, 0xaf]),
        ("an overlong NUL (Java)", &[0xc0, 0x80]),
        ("a surrogate (CESU-8)", &[0xed, 0xa0, 0x80]),
        ("a pair of surrogates (CESU-8)", &[0xed, 0xa0, 0xbd, 0xed, 0xb4, 0x91]),
        ("beyond U+10FFFF", &[0xf4, 0x90, 0x80, 0x80]),
        ("five bytes", &[0xf8, 0x88, 0x80, 0x80, 0x80]),
        ("Latin-1", b"caf\xe9"),
    ] {
        all.push((what, [b"{@,\"x\":\"", bytes, b"\"}"].concat()));
        all.push((what, [b"{@,\"", bytes, b"\":1}"].concat()));
    }
    for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("[{\"a\":[", "]}]")] {
        for depth in [40, 127, 128, 129, 400] {
            let (open, close) = (open.repeat(depth), close.repeat(depth));
            all.push(("deep", format!("{{@,\"x\":{open}0{close}}}").into()));
            all.push(("deep and open", format!("{{@,\"x\":{open}").into()));
        }
    }
    let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_be_bytes).collect();
    all.push(("UTF-16", utf16("{}")));
    all.push(("CBOR", vec![0xa1, 0x63, b'a', b'l', b'g', 0x26]));
    for text in ["", " ", "null", "true", "0", "\"\"", "[]", "[[]]", "{", "}", "{}{", "\0"] {
        all.push(("no object", text.into()));
    }
    all
}

/// What is odd, and still good JSON of one meaning.
const WELL_FORMED: [&str; 10] = [
    "{@}",
    " \t\r\n{@} \t\r\n",
    "{@,\"x\":\"\\ud83d\\udd11\"}",
    "{@,\"x\":\"\u{feff}\"}",
    "{@,\"x\":[-0,0.0,1e3,1E+3,-1.5e-7,123456789012345678901234567890]}",
    "{@,\"x\":\"\\/\\b\\f\\n\\r\\t\\\"\\\\\\u0000\"}",
    "{@,\"\":null}",
    "{@,\"X\":1,\"x\":2,\"\u{ff58}\":3}",
    "{@,\"x\":{\"x\":{\"x\":[[[[[[{}]]]]]]}}}",
    "{@,\n\t\"x\" : [ true , false , null ] }",
];

fn filled(template: &[u8], members: &str) -> Vec<u8> {
    let mut all = Vec::new();
    for (at, part) in template.split(|&byte| byte == b'@').enumerate() {
        if at > 0 {
            all.extend(members.as_bytes());
        }
        all.extend(part);
    }
    all
}

#[test]
fn json_that_is_none_or_ambiguous() {
    let bench = Bench::new();
    let (head, body) = (header(&bench.key).to_string(), claims().to_string());
    let members = |text: &str| text[1..text.len() - 1].to_owned();
    for good in WELL_FORMED {
        let as_header = filled(good.as_bytes(), &members(&head));
        accepts(&bench.keys, good, &signed_segments(&bench.key, &b64(as_header), &b64(&body)));
        let as_claims = filled(good.as_bytes(), &members(&body));
        accepts(&bench.keys, good, &signed_segments(&bench.key, &b64(&head), &b64(as_claims)));
    }
    for (what, template) in ill_formed() {
        let as_header = b64(filled(&template, &members(&head)));
        let jwt = signed_segments(&bench.key, &as_header, &b64(&body));
        // Too deep for the limit of the header's size, and refused for that.
        let expected = if as_header.len() > 2048 { "Header(it is too large)" } else { NO_HEADER };
        // No segment at all is another matter.
        let empty = template.is_empty();
        refuses(&bench.keys, what, &jwt, if empty { super::SEGMENTS } else { expected });
        let as_claims = b64(filled(&template, &members(&body)));
        let jwt = signed_segments(&bench.key, &b64(&head), &as_claims);
        refuses(&bench.keys, what, &jwt, if empty { super::SEGMENTS } else { "Json(" });
    }
}

#[test]
fn the_reasons_are_those_of_the_rows() {
    let bench = Bench::new();
    let (head, body) = (header(&bench.key).to_string(), claims().to_string());
    let also = |more: &str| format!("{},{more}}}", &body[..body.len() - 1]);
    for (more, expected) in [
        (r#""x":1,"x":1"#, "Json(Error(`x` occurs twice"),
        (r#""sub":"admin""#, "Json(Error(`sub` occurs twice"),
        (r#""\u0073ub":"admin""#, "Json(Error(`sub` occurs twice"),
        (r#""x":{"y":1,"\u0079":2}"#, "Json(Error(`y` occurs twice"),
        (&format!(r#""x":{}{}"#, "[".repeat(40), "]".repeat(40)), "Json(Error(nested too deeply"),
        (&format!(r#""x":{}"#, "[".repeat(90_000)), "Json(Error(nested too deeply"),
        (&format!(r#""x":{}"#, "{\"a\":".repeat(90_000)), "Json(Error(nested too deeply"),
        (r#""x":1e400"#, "Json(Error(number out of range"),
        (r#""x":"\ud800""#, "Json(Error(unexpected end of hex escape"),
        (r#""x":"\udc00""#, "Json(Error(lone leading surrogate in hex escape"),
        ("\"x\":\"\n\"", "Json(Error(control character (u0000-u001F) found"),
        (r#""x":01"#, "Json(Error(invalid number"),
        (r#""x":NaN"#, "Json(Error(expected value"),
    ] {
        refuses(
            &bench.keys,
            more.get(..40).unwrap_or(more),
            &signed(&bench.key, &head, &also(more)),
            expected,
        );
    }
}

/// RFC 7519 §2 would allow a fraction. Two parsers that round it differently see two different
/// times, and one that reads 1e400 as infinity sees a token without end: a time is an integer.
#[test]
fn numbers_that_are_no_times() {
    let bench = Bench::new();
    let head = header(&bench.key).to_string();
    let with = |name: &str, value: &str| {
        let mut all = claims();
        all.as_object_mut().unwrap().remove(name);
        let text = all.to_string();
        format!("{},\"{name}\":{value}}}", &text[..text.len() - 1])
    };
    for name in ["exp", "iat", "nbf", "auth_time"] {
        let no_time = format!("Json(Error(`{name}`: invalid");
        let text = format!("Json(Error(`{name}`: invalid type");
        let (no_time, text) = (&*no_time, &*text);
        for (value, expected) in [
            ("1e400", "Json(Error(number out of range"),
            ("1e308", no_time),
            ("18446744073709551616", no_time),
            ("340282366920938463463374607431768211456", no_time),
            ("-0.1", no_time),
            ("-1e-9", no_time),
            ("-1", no_time),
            ("-9223372036854775808", no_time),
            ("-9223372036854775809", no_time),
            ("01700000600", "Json(Error(invalid number"),
            ("+1700000600", "Json(Error(expected value"),
            ("0x6553f358", "Json(Error("),
            ("1_700_000_600", "Json(Error("),
            ("\"1700000600\"", text),
            ("\"2023-11-14T22:23:20Z\"", text),
            ("\"\"", text),
            ("true", text),
            ("[1700000600]", text),
            ("{}", text),
        ] {
            let jwt = signed(&bench.key, &head, &with(name, value));
            refuses(&bench.keys, &format!("{name}: {value}"), &jwt, expected);
        }
    }
    let now = NOW.to_string();
    for (name, value, expected) in [
        ("exp", "null", Some("Claims(`exp` is missing)")),
        ("iat", "null", Some("Claims(`iat` is missing)")),
        ("nbf", "null", None),
        ("exp", "0", Some("Expired")),
        ("exp", "-0", Some("Expired")),
        ("exp", "-0.0", Some("Expired")),
        ("exp", "0.1", Some("Expired")),
        ("exp", "1e3", Some("Expired")),
        ("exp", "1700000600.0", None),
        ("exp", "1700000600.5", None),
        ("exp", "17000006e2", None),
        ("iat", "1.7e9", None),
        ("nbf", "1.7e9", None),
        ("exp", &now, None),
        ("exp", "18446744073709551615", None),
        ("exp", "18446744073709552", None),
        ("iat", "0", None),
        ("iat", "18446744073709551615", Some("NotYetValid")),
        ("nbf", "18446744073709551615", Some("NotYetValid")),
        ("nbf", "0", None),
        // In milliseconds: far away, not long ago.
        ("iat", "1700000000000", Some("NotYetValid")),
        ("exp", "1700000600000", None),
    ] {
        let jwt = signed(&bench.key, &head, &with(name, value));
        let what = format!("{name}: {value}");
        match expected {
            Some(expected) => refuses(&bench.keys, &what, &jwt, expected),
            None => accepts(&bench.keys, &what, &jwt),
        }
    }
}

#[test]
fn audiences_of_every_shape() {
    let bench = Bench::new();
    let crowd = |more: &[&str]| {
        let others = (0..1000).map(|at| at.to_string());
        json!(others.chain(more.iter().map(|&one| one.to_owned())).collect::<Vec<_>>())
    };
    let json = "Json(Error(";
    for (aud, expected) in [
        (json!(AUDIENCE), None),
        (json!([AUDIENCE]), None),
        (json!([AUDIENCE, AUDIENCE]), None),
        (json!(["https://billing.example", AUDIENCE]), None),
        (crowd(&[AUDIENCE]), None),
        (crowd(&[]), Some("Audience")),
        (
            crowd(&["x".repeat(1500).as_str(), AUDIENCE]),
            Some("Json(Error(`aud`: the value is not a valid audience"),
        ),
        (json!(null), Some("Audience")),
        (json!("https://orders.example.thief.example"), Some("Audience")),
        (json!("https://orders.exampl"), Some("Audience")),
        (json!("xhttps://orders.example"), Some("Audience")),
        (json!("https://orders.example "), Some("Audience")),
        (json!("https://orders.example\0"), Some("Audience")),
        (json!("HTTPS://ORDERS.EXAMPLE"), Some("Audience")),
        (json!("https://orders.example:443"), Some("Audience")),
        (json!("https://orders.example#"), Some("Audience")),
        (json!("https://orders.example https://billing.example"), Some("Audience")),
        (json!("https://orders.example,https://billing.example"), Some("Audience")),
        (json!("[\"https://orders.example\"]"), Some("Audience")),
        (json!("*"), Some("Audience")),
        (json!("https://*.example"), Some("Audience")),
        (json!("https://\u{43e}rders.example"), Some("Audience")),
        (json!(""), Some(json)),
        (json!(["", AUDIENCE]), Some(json)),
        (json!([]), Some("Audience")),
        (json!([null]), Some(json)),
        (json!([AUDIENCE, null]), Some(json)),
        (json!([AUDIENCE, 1]), Some(json)),
        (json!([[AUDIENCE]]), Some(json)),
        (json!([{"aud": AUDIENCE}]), Some(json)),
        (json!({"0": AUDIENCE}), Some(json)),
        (json!(0), Some(json)),
        (json!(true), Some(json)),
    ] {
        let mut all = claims();
        all["aud"] = aud;
        let jwt = signed(&bench.key, &header(&bench.key).to_string(), &all.to_string());
        let what: String = all["aud"].to_string().chars().take(60).collect();
        match expected {
            Some(expected) => refuses(&bench.keys, &what, &jwt, expected),
            None => accepts(&bench.keys, &what, &jwt),
        }
    }
}
