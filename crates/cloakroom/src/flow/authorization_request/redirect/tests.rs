use super::*;

/// A buffer that grows would leave the code behind in memory.
#[test]
fn a_page_with_a_code_is_made_in_one_piece() {
    let issuer: Arc<str> = "https://as.example".into();
    let (uri, quotes) = ("https://app.example/callback", "\"".repeat(3_000));
    for (uri, state) in [(uri, &*quotes), (&format!("{uri}?{quotes}"), "x")] {
        let responder = Responder::to(&issuer, uri, Some(state), ResponseMode::FormPost);
        let redirect = responder.code(&TokenSecret::new("c".repeat(75)));
        let Answer::Page(page) = redirect.answer else { panic!("no page") };
        // What all others would have taken, had they been quotes as well.
        let spare = page.capacity() - page.len();
        assert!((900..1_000).contains(&spare), "{spare}");
    }
}
