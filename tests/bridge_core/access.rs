//! Who may do what, as a table; the routes are held against it end to end.

use bridge_core::access::{Access, Right, Role};

fn access(role: Role, streams: &[&str]) -> Access {
    Access { role, streams: streams.iter().map(|s| s.parse().unwrap()).collect(), since: 5, until: Some(9) }
}

#[test]
fn a_role_has_its_rights_and_no_others() {
    use Right::{Administer, Approve, Operate, Publish, Read};
    for (role, rights) in [
        (Role::Viewer, vec![Read]),
        (Role::Publisher, vec![Read, Publish]),
        (Role::Operator, vec![Read, Operate]),
        (Role::Approver, vec![Read, Approve]),
        (Role::Admin, vec![Read, Publish, Operate, Approve, Administer]),
    ] {
        let all = [Read, Publish, Operate, Approve, Administer];
        let has: Vec<Right> =
            all.into_iter().filter(|right| access(role, &[]).allows(&[*right], None).is_ok()).collect();
        assert_eq!(has, rights, "{role}");
        assert_eq!(role.to_string().parse(), Ok(role));
    }
    assert_eq!("king".parse::<Role>(), Err("`king` is no role: viewer, publisher, operator, approver or admin".into()));
}

#[test]
fn a_scope_narrows_what_is_changed_and_not_what_is_seen() {
    let narrow = access(Role::Operator, &["faces", "voices"]);
    let of = |stream: &str| Some(stream.parse().unwrap());
    for (right, stream, answer) in [
        (Right::Read, None, Ok(())),
        (Right::Read, of("digits"), Ok(())),
        (Right::Operate, of("faces"), Ok(())),
        (Right::Operate, of("digits"), Err("this token is for streams faces, voices, and not for `digits`")),
        (Right::Operate, None, Err("this token is for streams faces, voices, and for nothing beside it")),
        (Right::Publish, of("faces"), Err("an operator may not do this: it takes publisher or admin")),
    ] {
        assert_eq!(narrow.allows(&[right], stream.as_ref()), answer.map_err(str::to_owned), "{right:?} {stream:?}");
    }
    assert_eq!([8, 9].map(|now| narrow.has_ended(now)), [false, true]);
}
