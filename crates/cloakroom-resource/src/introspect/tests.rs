use cloakroom_core::TokenSecret;

use crate::introspect::form;

#[test]
fn a_form_is_written_where_there_is_room_for_all_of_it() {
    // Each character takes three, and the longest of the names comes with it.
    let (token, resource) = (TokenSecret::new("+".repeat(500)), "/".repeat(100));
    for resource in [None, Some(&*resource)] {
        let form = form(&token, resource);
        assert!(form.starts_with("token=%2B"));
        // A buffer that grows doubles, and leaves the token where it was.
        assert!(form.capacity() - form.len() <= 32, "{} {}", form.capacity(), form.len());
    }
}
