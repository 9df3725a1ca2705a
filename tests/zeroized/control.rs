//! Whether the method sees anything at all.

use std::hint::black_box;

use zeroize::Zeroizing;

use crate::secrets::left_behind;

#[test]
fn a_plain_buffer_is_found() {
    const SECRET: &str = "Gu3-plain-5519-buffer";
    let found = left_behind(|secrets| {
        secrets.add("the secret", SECRET);
        drop(black_box(SECRET.as_bytes().to_vec()));
    });
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn a_part_in_the_middle_of_a_block_is_found() {
    const SECRET: &str = "7fHq-middle-of-block-0";
    let found = left_behind(|secrets| {
        secrets.add("the secret", SECRET);
        drop(black_box(format!("{{\"token\":\"{}\"}}", &SECRET[5..13])));
    });
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn what_a_growing_buffer_leaves_behind_is_found() {
    const SECRET: &str = "Vw8-left-by-growing-22";
    let found = left_behind(|secrets| {
        secrets.add("the secret", SECRET);
        let mut buffer = Zeroizing::new(SECRET.as_bytes().to_vec());
        buffer.reserve(1000);
        drop(black_box(buffer));
    });
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn what_another_thread_frees_is_found() {
    const SECRET: &str = "p0-Another-thread-xK41";
    let found = left_behind(|secrets| {
        secrets.add("the secret", SECRET);
        let buffer = black_box(SECRET.as_bytes().to_vec());
        std::thread::spawn(|| drop(buffer)).join().expect("it only frees");
    });
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn a_wiped_or_a_living_buffer_is_not_found() {
    const SECRET: &str = "dY6-living-and-wiped-9";
    let mut living = Vec::new();
    let found = left_behind(|secrets| {
        secrets.add("the secret", SECRET);
        drop(black_box(Zeroizing::new(SECRET.as_bytes().to_vec())));
        living = black_box(SECRET.as_bytes().to_vec());
    });
    assert!(found.is_empty(), "{found:?}");
}
