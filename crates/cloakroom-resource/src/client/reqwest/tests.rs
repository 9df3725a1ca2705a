use super::*;

#[test]
fn a_body_that_outgrows_its_buffer_moves_to_one_of_our_own() {
    // Ours is a power of two. One that grows by itself doubles, and what was there is not wiped.
    for (room, chunk, expected) in [(5, "", 5), (6, "x", 6), (5, "x", 8), (12, "xxxxxxxx", 16)] {
        let mut body = Zeroizing::new(Vec::with_capacity(room));
        body.extend_from_slice(b"12345");
        append(&mut body, chunk.as_bytes());
        assert_eq!(body.capacity(), expected, "{room} {chunk}");
        assert_eq!(*body, format!("12345{chunk}").into_bytes());
    }
}
