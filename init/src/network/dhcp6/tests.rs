use super::answer::tests::{IAID, SERVER, address, association};
use super::*;
use proptest::prelude::*;

const ID: [u8; 4] = [0, 4, 7, 7];

fn client() -> Client {
    Client::new(ID.to_vec(), IAID, Random::from_seed(7))
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// T1 is 500 s, T2 is 800 s, the end 2000 s.
fn answer(xid: u32, kind: Kind) -> Vec<u8> {
    let ia = self::association((0, 0), &[(address(7), 1000, 2000)]);
    answer_with(xid, kind, ia)
}

fn answer_with(xid: u32, kind: Kind, ia: Vec<u8>) -> Vec<u8> {
    let options = vec![
        (option::CLIENT_ID, ID.to_vec()),
        (option::SERVER_ID, SERVER.to_vec()),
        (option::IA_NA, ia),
        (option::NAME_SERVERS, address(53).octets().to_vec()),
    ];
    Message { kind, xid, options }.encode()
}

/// The message that the only action sends.
fn sent(actions: &[Action]) -> Message {
    match actions {
        [Action::Send(payload)] => Message::decode(payload).expect("a message"),
        other => panic!("one message was expected: {other:?}"),
    }
}

fn soliciting(now: Duration) -> (Client, Message) {
    let mut client = client();
    assert_eq!(client.step(now, Event::Need(Need::Addresses)), []);
    let solicit = sent(&client.step(now, Event::LinkUp));
    (client, solicit)
}

fn bound(now: Duration) -> Client {
    let (mut client, solicit) = soliciting(now);
    let request = sent(&client.step(now, Event::Received(&answer(solicit.xid, Kind::Advertise))));
    let actions = client.step(now, Event::Received(&answer(request.xid, Kind::Reply)));
    assert!(matches!(&actions[..], [Action::Configure(lease)] if lease.addresses == [address(7)]));
    client
}

#[test]
fn four_messages_make_a_lease() {
    let (mut client, solicit) = soliciting(at(0));
    assert_eq!(solicit.kind, Kind::Solicit);
    assert_eq!(solicit.option(option::CLIENT_ID), Some(&ID[..]));
    let request = sent(&client.step(at(0), Event::Received(&answer(solicit.xid, Kind::Advertise))));
    assert_eq!(request.kind, Kind::Request);
    assert_eq!(request.option(option::SERVER_ID), Some(&SERVER[..]));
    let asked = request.option(option::IA_NA).expect("an association");
    assert!(asked.ends_with(&[&address(7).octets()[..], &[0; 8]].concat()));
    client.step(at(0), Event::Received(&answer(request.xid, Kind::Reply)));
    assert_eq!(client.facts().name_servers, [address(53)]);
    assert_eq!(client.deadline(), Some(at(500)));
}

#[test]
fn without_a_need_nothing_is_asked_and_facts_alone_make_no_lease() {
    let mut client = client();
    assert_eq!(client.step(at(0), Event::LinkUp), []);
    assert_eq!(client.deadline(), None);
    let question = sent(&client.step(at(1), Event::Need(Need::Facts)));
    assert_eq!((question.kind, question.option(option::IA_NA)), (Kind::InformationRequest, None));
    assert_eq!(client.step(at(1), Event::Need(Need::Facts)), []);
    assert_eq!(client.step(at(1), Event::Received(&answer(question.xid, Kind::Reply))), []);
    assert_eq!(client.facts().name_servers, [address(53)]);
    assert_eq!(client.lease(), None);
    let again = client.deadline().expect("a refresh");
    assert_eq!(sent(&client.step(again, Event::Timer)).kind, Kind::InformationRequest);
    // The router changes its mind.
    assert_eq!(sent(&client.step(again, Event::Need(Need::Addresses))).kind, Kind::Solicit);
}

#[test]
fn answers_to_others_are_ignored() {
    let (mut client, solicit) = soliciting(at(0));
    let foreign = |code: u16| {
        let mut message = Message::decode(&answer(solicit.xid, Kind::Advertise)).expect("one");
        message.options.retain(|(found, _)| *found != code);
        message.encode()
    };
    let others = [
        answer(solicit.xid ^ 1, Kind::Advertise),
        answer(solicit.xid, Kind::Reply),
        foreign(option::CLIENT_ID),
        foreign(option::SERVER_ID),
        foreign(option::IA_NA),
        vec![2; 40],
    ];
    for payload in others {
        assert_eq!(client.step(at(0), Event::Received(&payload)), []);
    }
}

#[test]
fn a_lease_is_renewed_by_its_server() {
    let mut client = bound(at(0));
    let renew = sent(&client.step(at(500), Event::Timer));
    assert_eq!((renew.kind, renew.option(option::SERVER_ID)), (Kind::Renew, Some(&SERVER[..])));
    let actions = client.step(at(501), Event::Received(&answer(renew.xid, Kind::Reply)));
    assert!(matches!(actions[..], [Action::Configure(_)]));
    assert_eq!(client.deadline(), Some(at(1001)));
}

#[test]
fn a_silent_server_is_given_up_for_any_and_then_the_lease_ends() {
    let mut client = bound(at(0));
    let mut log = Vec::new();
    while client.lease().is_some() {
        let now = client.deadline().expect("a next try");
        for action in client.step(now, Event::Timer) {
            match action {
                Action::Send(payload) => {
                    log.push((now.as_secs(), Message::decode(&payload).expect("one").kind));
                }
                Action::Deconfigure(_) => assert_eq!(now, at(2000)),
                Action::Configure(_) => panic!("nobody granted anything"),
            }
        }
    }
    let first = |kind| log.iter().find(|(_, found)| *found == kind).map(|(at, _)| *at);
    assert_eq!((first(Kind::Renew), first(Kind::Rebind)), (Some(500), Some(800)));
    assert_eq!(first(Kind::Solicit), Some(2000));
    assert!(log.len() < 20, "{log:?}");
}

#[test]
fn a_server_that_does_not_know_the_address_ends_the_lease() {
    let mut client = bound(at(0));
    let renew = sent(&client.step(at(500), Event::Timer));
    let mut ia = self::association((0, 0), &[]);
    ia.extend([0, 13, 0, 2, 0, 3]);
    let refusal = answer_with(renew.xid, Kind::Reply, ia);
    let actions = client.step(at(500), Event::Received(&refusal));
    assert!(matches!(actions[..], [Action::Deconfigure(_)]));
    let next = client.deadline().expect("a next try");
    assert_eq!(sent(&client.step(next, Event::Timer)).kind, Kind::Solicit);
}

#[test]
fn other_addresses_replace_the_old_ones() {
    let mut client = bound(at(0));
    let renew = sent(&client.step(at(500), Event::Timer));
    let ia = self::association((0, 0), &[(address(8), 1000, 2000)]);
    let actions = client.step(at(500), Event::Received(&answer_with(renew.xid, Kind::Reply, ia)));
    assert!(matches!(&actions[..], [Action::Deconfigure(old), Action::Configure(new)]
        if old.addresses == [address(7)] && new.addresses == [address(8)]));
}

#[test]
fn a_cable_put_back_asks_any_server_for_the_same_address() {
    let mut client = bound(at(0));
    assert_eq!(client.step(at(10), Event::LinkDown), []);
    assert_eq!(client.facts(), &Facts::default());
    let rebind = sent(&client.step(at(20), Event::LinkUp));
    assert_eq!(rebind.kind, Kind::Rebind);
    client.step(at(20), Event::Received(&answer(rebind.xid, Kind::Reply)));
    assert_eq!(client.deadline(), Some(at(520)));
    client.step(at(30), Event::LinkDown);
    assert_eq!(client.deadline(), Some(at(2020)));
    assert!(matches!(client.step(at(2020), Event::Timer)[..], [Action::Deconfigure(_)]));
    assert_eq!(sent(&client.step(at(2021), Event::LinkUp)).kind, Kind::Solicit);
}

proptest! {
    /// Whatever comes: a lease that is configured was granted, one that is lost was configured, and
    /// as long as the link is up and something is needed there is a next step.
    #[test]
    fn no_sequence_of_events_gets_stuck(
        events in proptest::collection::vec((0..8u8, 0..700u64, any::<u8>()), 1..200),
    ) {
        let mut client = client();
        let (mut now, mut used) = (at(0), None);
        for (event, later, noise) in events {
            now += at(later);
            let mut payload = answer(client.xid, [Kind::Advertise, Kind::Reply][event as usize % 2]);
            let actions = match event {
                0 => client.step(now, Event::LinkUp),
                1 => client.step(now, Event::LinkDown),
                2 => {
                    let at = usize::from(noise) % payload.len();
                    payload[at] ^= noise;
                    client.step(now, Event::Received(&payload))
                }
                3 => {
                    let needs = [Need::Nothing, Need::Facts, Need::Addresses];
                    client.step(now, Event::Need(needs[usize::from(noise) % 3]))
                }
                4 => client.step(now, Event::Timer),
                _ => client.step(now, Event::Received(&payload)),
            };
            for action in actions {
                match action {
                    Action::Configure(lease) => used = Some(lease),
                    Action::Deconfigure(lease) => prop_assert_eq!(used.take(), Some(lease)),
                    Action::Send(payload) => {
                        prop_assert!(client.up);
                        prop_assert!(Message::decode(&payload).is_some());
                    }
                }
            }
            prop_assert_eq!(client.lease(), used.as_ref());
            let busy = used.is_some() || client.up && client.need != Need::Nothing;
            prop_assert_eq!(client.deadline().is_some(), busy);
        }
    }
}
