//! Tokens, each used once: what the table lets in.

use super::*;
use protocol::JoinToken;

fn device(name: &str) -> DeviceId {
    name.parse().unwrap()
}

/// T68: a token that was used, has expired, or is for somebody else.
#[tokio::test]
async fn a_token_lets_one_key_of_one_device_in_while_it_lasts() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), "sea").await.unwrap();
    let (one, two) = (Digest::of(b"one"), Digest::of(b"two"));
    let (token, kept) = store.new_join_token(&device("a"), 60_000, true).await.unwrap();
    assert!(!kept.used && kept.device == "a" && kept.pending);

    let unknown = JoinToken::new(&[0; 32]);
    assert_eq!(store.use_join_token(&unknown, &device("a"), &one).await.unwrap(), Err(NoEntry::Unknown));
    assert_eq!(store.use_join_token(&token, &device("b"), &one).await.unwrap(), Err(NoEntry::OtherDevice));
    let invitation = store.look_at_join_token(&token, &device("a"), None).await.unwrap().unwrap();
    assert!(invitation.pending && (1..=unix_millis()).contains(&invitation.made));
    assert!(store.use_join_token(&token, &device("a"), &one).await.unwrap().is_ok());
    assert_eq!(store.use_join_token(&token, &device("a"), &two).await.unwrap(), Err(NoEntry::Used));
    // Its answer may have been lost.
    assert!(store.use_join_token(&token, &device("a"), &one).await.unwrap().is_ok());
    assert!(store.join_tokens().await.unwrap()[0].used);
    store.give_back_join_token(&token).await.unwrap();
    assert!(store.use_join_token(&token, &device("a"), &two).await.unwrap().is_ok());

    let (late, _) = store.new_join_token(&device("a"), 0, false).await.unwrap();
    assert_eq!(store.use_join_token(&late, &device("a"), &one).await.unwrap(), Err(NoEntry::Expired));
    assert!(!store.join_tokens().await.unwrap().iter().any(|kept| kept.until <= unix_millis() && kept.used));
}

#[tokio::test]
async fn a_token_that_was_taken_back_lets_nobody_in() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), "sea").await.unwrap();
    let (token, kept) = store.new_join_token(&device("a"), 60_000, false).await.unwrap();
    let (other, _) = store.new_join_token(&device("b"), 60_000, false).await.unwrap();
    assert!(!store.revoke_join_token("").await.unwrap() && !store.revoke_join_token("%").await.unwrap());
    assert!(store.revoke_join_token(&kept.id).await.unwrap());
    assert!(!store.revoke_join_token(&kept.id).await.unwrap());
    assert_eq!(store.look_at_join_token(&token, &device("a"), None).await.unwrap(), Err(NoEntry::Unknown));
    assert!(!store.look_at_join_token(&other, &device("b"), None).await.unwrap().unwrap().pending);
}

#[tokio::test]
async fn the_database_holds_no_secret() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), "sea").await.unwrap();
    let (token, _) = store.new_join_token(&device("a"), 60_000, false).await.unwrap();
    store.close().await;
    let secret = token.as_str().trim_start_matches("petrel_join_").as_bytes();
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(secret.len()).any(|part| part == secret));
    }
}
