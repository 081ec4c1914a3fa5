use super::*;
use proptest::prelude::*;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];
const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
/// T1 is 500 s, T2 is 875 s.
const LEASE: u32 = 1000;

fn client() -> Client {
    Client::new(MAC, Some("node".into()), Random::from_seed(7))
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn answer(xid: u32, kind: Kind) -> Vec<u8> {
    let options = BTreeMap::from([
        (option::SERVER_ID, SERVER.octets().to_vec()),
        (option::LEASE_TIME, LEASE.to_be_bytes().to_vec()),
        (option::SUBNET_MASK, vec![255, 255, 255, 0]),
        (option::ROUTER, SERVER.octets().to_vec()),
    ]);
    let message = Message {
        kind,
        reply: true,
        xid,
        seconds: 0,
        broadcast: false,
        client: Ipv4Addr::UNSPECIFIED,
        yours: ADDRESS,
        mac: MAC,
        options,
    };
    message.encode()
}

/// The message that the only action sends.
fn sent(actions: &[Action]) -> Message {
    match actions {
        [Action::Broadcast(payload) | Action::Unicast { payload, .. }] => {
            Message::decode(payload).expect("a message")
        }
        other => panic!("one message was expected: {other:?}"),
    }
}

/// A client that got its lease at `now`.
fn bound(now: Duration) -> Client {
    let mut client = client();
    let discover = sent(&client.step(now, Event::LinkUp));
    let offer = answer(discover.xid, Kind::Offer);
    let request = sent(&client.step(now, Event::Received(&offer)));
    let ack = answer(request.xid, Kind::Ack);
    let actions = client.step(now, Event::Received(&ack));
    assert!(matches!(&actions[..], [Action::Configure(lease)] if lease.address == ADDRESS));
    client
}

#[test]
fn four_messages_make_a_lease() {
    let mut client = client();
    let discover = sent(&client.step(at(0), Event::LinkUp));
    assert_eq!(discover.kind, Kind::Discover);
    assert_eq!(discover.text(option::HOST_NAME), Some("node"));
    let offer = answer(discover.xid, Kind::Offer);
    let request = sent(&client.step(at(0), Event::Received(&offer)));
    assert_eq!(request.kind, Kind::Request);
    assert_eq!(request.address(option::REQUESTED_ADDRESS), Some(ADDRESS));
    assert_eq!(request.address(option::SERVER_ID), Some(SERVER));
    assert_eq!(request.client, Ipv4Addr::UNSPECIFIED);
    client.step(at(0), Event::Received(&answer(request.xid, Kind::Ack)));
    assert_eq!(client.lease().map(|lease| lease.address), Some(ADDRESS));
    assert_eq!(client.deadline(), Some(at(500)));
}

#[test]
fn answers_to_others_are_ignored() {
    let mut client = client();
    let xid = sent(&client.step(at(0), Event::LinkUp)).xid;
    let mut foreign = answer(xid, Kind::Offer);
    foreign[28] ^= 1;
    for payload in [answer(xid ^ 1, Kind::Offer), answer(xid, Kind::Ack), foreign, vec![1; 300]] {
        assert_eq!(client.step(at(0), Event::Received(&payload)), []);
    }
    assert_eq!(client.lease(), None);
}

#[test]
fn silence_is_met_with_ever_longer_waits() {
    let mut client = client();
    let mut now = at(0);
    client.step(now, Event::LinkUp);
    let mut waits = Vec::new();
    for _ in 0..9 {
        let next = client.deadline().expect("a next try");
        waits.push((next - now).as_secs_f64());
        now = next;
        assert_eq!(sent(&client.step(now, Event::Timer)).kind, Kind::Discover);
    }
    for (wait, expected) in waits.iter().zip([1., 2., 4., 8., 16., 32., 64., 64., 64.]) {
        assert!((expected * 0.75..=expected * 1.25).contains(wait), "{waits:?}");
    }
}

#[test]
fn an_early_timer_does_nothing() {
    let mut client = client();
    client.step(at(0), Event::LinkUp);
    assert_eq!(client.step(at(0), Event::Timer), []);
}

#[test]
fn an_offer_that_is_never_acknowledged_is_dropped() {
    let mut client = client();
    let xid = sent(&client.step(at(0), Event::LinkUp)).xid;
    client.step(at(0), Event::Received(&answer(xid, Kind::Offer)));
    for _ in 1..REQUEST_TRIES {
        let now = client.deadline().expect("a next try");
        assert_eq!(sent(&client.step(now, Event::Timer)).kind, Kind::Request);
    }
    let now = client.deadline().expect("a next try");
    let again = sent(&client.step(now, Event::Timer));
    assert_eq!(again.kind, Kind::Discover);
    assert_ne!(again.xid, xid);
}

#[test]
fn a_lease_is_renewed_by_its_server() {
    let mut client = bound(at(0));
    let actions = client.step(at(500), Event::Timer);
    let [Action::Unicast { from: ADDRESS, to: SERVER, .. }] = actions[..] else {
        panic!("{actions:?}")
    };
    let request = sent(&actions);
    assert_eq!(request.client, ADDRESS);
    // RFC 2131, table 5: neither in RENEWING.
    assert_eq!(request.address(option::SERVER_ID), None);
    assert_eq!(request.address(option::REQUESTED_ADDRESS), None);
    let actions = client.step(at(501), Event::Received(&answer(request.xid, Kind::Ack)));
    assert!(matches!(actions[..], [Action::Configure(_)]));
    assert_eq!(client.deadline(), Some(at(1000)));
}

#[test]
fn a_silent_server_is_given_up_for_any_and_then_the_lease_ends() {
    let mut client = bound(at(0));
    let mut log = Vec::new();
    while client.lease().is_some() {
        let now = client.deadline().expect("a next try");
        for action in client.step(now, Event::Timer) {
            log.push((
                now.as_secs(),
                match action {
                    Action::Unicast { .. } => "renew",
                    Action::Broadcast(_) => "broadcast",
                    Action::Deconfigure(_) => "lost",
                    Action::Configure(_) => "got",
                },
            ));
        }
    }
    let at = |what| log.iter().filter(|(_, w)| *w == what).map(|(at, _)| *at).collect::<Vec<_>>();
    assert_eq!(at("renew"), [500, 687, 781, 841]);
    assert_eq!(at("broadcast"), [875, 937, 997, 1000]);
    assert_eq!(at("lost"), [1000]);
}

#[test]
fn a_renewed_lease_with_other_routes_replaces_the_old_one() {
    let mut client = bound(at(0));
    let request = sent(&client.step(at(500), Event::Timer));
    let mut ack = Message::decode(&answer(request.xid, Kind::Ack)).expect("a message");
    ack.options.insert(option::ROUTER, vec![192, 0, 2, 254]);
    let actions = client.step(at(500), Event::Received(&ack.encode()));
    let [Action::Deconfigure(old), Action::Configure(new)] = &actions[..] else {
        panic!("{actions:?}")
    };
    assert_ne!(old.routes, new.routes);
}

#[test]
fn a_refused_lease_ends_at_once_and_the_search_begins_soon() {
    let mut client = bound(at(0));
    let request = sent(&client.step(at(500), Event::Timer));
    let actions = client.step(at(500), Event::Received(&answer(request.xid, Kind::Nak)));
    assert!(matches!(actions[..], [Action::Deconfigure(_)]));
    assert_eq!(client.lease(), None);
    let now = client.deadline().expect("a next try");
    assert!(now > at(501));
    assert_eq!(sent(&client.step(now, Event::Timer)).kind, Kind::Discover);
}

#[test]
fn a_cable_put_back_asks_for_the_same_address() {
    let mut client = bound(at(0));
    assert_eq!(client.step(at(10), Event::LinkDown), []);
    let request = sent(&client.step(at(20), Event::LinkUp));
    assert_eq!(request.kind, Kind::Request);
    assert_eq!(request.address(option::REQUESTED_ADDRESS), Some(ADDRESS));
    assert_eq!(request.address(option::SERVER_ID), None);
    client.step(at(20), Event::Received(&answer(request.xid, Kind::Ack)));
    assert_eq!(client.deadline(), Some(at(520)));
}

#[test]
fn a_lease_ends_while_the_cable_is_out() {
    let mut client = bound(at(0));
    client.step(at(10), Event::LinkDown);
    assert_eq!(client.deadline(), Some(at(1000)));
    assert!(matches!(client.step(at(1000), Event::Timer)[..], [Action::Deconfigure(_)]));
    assert_eq!(sent(&client.step(at(1001), Event::LinkUp)).kind, Kind::Discover);
}

proptest! {
    /// Whatever comes: a lease that is configured was granted, one that is lost was configured,
    /// and as long as the link is up there is a next step.
    #[test]
    fn no_sequence_of_events_gets_stuck(
        events in proptest::collection::vec((0..6u8, 0..400u64, any::<u8>()), 1..200),
    ) {
        let mut client = client();
        let (mut now, mut up, mut used) = (at(0), false, None);
        for (event, later, noise) in events {
            now += at(later);
            let xid = client.xid;
            let mut payload = answer(xid, [Kind::Offer, Kind::Ack, Kind::Nak][event as usize % 3]);
            let actions = match event {
                0 => { up = true; client.step(now, Event::LinkUp) }
                1 => { up = false; client.step(now, Event::LinkDown) }
                2 => {
                    payload[usize::from(noise)] ^= noise;
                    client.step(now, Event::Received(&payload))
                }
                3 => client.step(now, Event::Timer),
                _ => client.step(now, Event::Received(&payload)),
            };
            for action in actions {
                match action {
                    Action::Configure(lease) => used = Some(lease),
                    Action::Deconfigure(lease) => prop_assert_eq!(used.take(), Some(lease)),
                    _ => {}
                }
            }
            prop_assert_eq!(client.lease(), used.as_ref());
            prop_assert!(!up || client.deadline().is_some());
            prop_assert!(up || client.deadline().is_some() == used.is_some());
        }
    }
}
