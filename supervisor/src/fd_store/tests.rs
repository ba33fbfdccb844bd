//! Tests with real sockets.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::net::{UnixListener, UnixStream},
};

use baton_contract::message::HeldShard;

use super::*;

fn spec(key: ListenerKey) -> ListenerSpec {
    ListenerSpec { key, name: "main".to_owned(), options: SocketOptions::default(), min_shards: 1 }
}

fn any_port() -> ListenerSpec {
    spec(ListenerKey::tcp((Ipv4Addr::LOCALHOST, 0).into()))
}

fn store() -> FdStore {
    FdStore::new(Vec::new(), "/nowhere/baton".into())
}

fn address(store: &FdStore, key: &ListenerKey) -> SocketAddr {
    let (_, fd, _) = *store.shards(key).first().expect("a shard");
    let listener = TcpListener::from(fd.try_clone_to_owned().expect("clone"));
    listener.local_addr().expect("address")
}

#[test]
fn all_shards_of_a_listener_have_one_port_and_accept_after_listen() {
    let (mut store, spec) = (store(), any_port());
    store.bind(std::slice::from_ref(&spec), 4).expect("bind");
    let shards = store.shards(&spec.key);
    assert_eq!(shards.len(), 4);
    assert!(shards.iter().all(|(_, _, listening)| !listening));
    let place = address(&store, &spec.key);
    assert!(TcpStream::connect(place).is_err(), "bound sockets must not accept");
    store.listen(std::slice::from_ref(&spec)).expect("listen");
    TcpStream::connect(place).expect("it accepts");
    assert!(store.shards(&spec.key).iter().all(|(_, _, listening)| *listening));
}

#[test]
fn shards_are_added_and_never_taken_away() {
    let (mut store, spec) = (store(), any_port());
    for (asked, expected) in [(2, 2), (5, 5), (1, 5)] {
        store.bind(std::slice::from_ref(&spec), asked).expect("bind");
        assert_eq!(store.shards(&spec.key).len(), expected);
    }
}

#[test]
fn nobody_gets_four_thousand_million_sockets() {
    let mut store = store();
    let unix = format!("unix:@baton-shards-{}", std::process::id());
    for mut spec in [any_port(), spec(unix.parse().expect("key"))] {
        spec.min_shards = u32::MAX;
        let error = store.bind(std::slice::from_ref(&spec), 2).expect_err("too many");
        assert!(error.to_string().contains("4294967295 sockets"), "{error}");
        assert!(store.shards(&spec.key).is_empty());
    }
}

#[test]
fn a_failed_bind_leaves_nothing_behind() {
    let (mut store, kept) = (store(), any_port());
    store.bind(std::slice::from_ref(&kept), 2).expect("bind");
    let taken = TcpListener::bind("127.0.0.1:0").expect("bind");
    let occupied = spec(ListenerKey::tcp(taken.local_addr().expect("address")));
    let added = spec(ListenerKey::tcp((Ipv4Addr::new(127, 0, 0, 2), 0).into()));
    let error = store
        .bind(&[kept.clone(), added.clone(), occupied.clone()], 6)
        .expect_err("the address is taken")
        .to_string();
    assert!(error.contains("cannot bind") && error.contains("`main`"), "{error}");
    assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
    assert_eq!(store.shards(&kept.key).len(), 2);
    assert!(store.shards(&added.key).is_empty());
    assert!(store.shards(&occupied.key).is_empty());
}

#[test]
fn a_unix_listener_is_one_socket_that_every_thread_gets() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("s");
    // A stale file of a process that is gone.
    drop(UnixListener::bind(&path).expect("bind"));
    let mut spec = spec(ListenerKey::unix(&path));
    spec.options.mode = 0o600;
    let mut store = store();
    store.bind(std::slice::from_ref(&spec), 3).expect("bind");
    store.listen(std::slice::from_ref(&spec)).expect("listen");
    assert_eq!(store.shards(&spec.key).len(), 3);
    UnixStream::connect(&path).expect("it accepts");
    store.release(std::slice::from_ref(&spec.key));
    assert!(!path.exists(), "the file goes with the listener");
}

#[test]
fn a_unix_listener_whose_file_was_removed_gets_it_back() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("s");
    let spec = spec(ListenerKey::unix(&path));
    let mut store = store();
    let serve = |store: &mut FdStore| {
        let restored = store.restore_files(std::slice::from_ref(&spec));
        assert!(restored.failed.is_empty(), "{restored:?}");
        store.bind(std::slice::from_ref(&spec), 2).expect("bind");
        store.listen(std::slice::from_ref(&spec)).expect("listen");
        UnixStream::connect(&path).expect("it accepts");
        let shards = store.shards(&spec.key);
        assert_eq!(shards.len(), 2);
        UnixListener::from(shards[0].1.try_clone_to_owned().expect("clone")).accept().expect("it");
    };
    serve(&mut store);
    std::fs::remove_file(&path).expect("remove");
    serve(&mut store);
    let inode = || std::fs::metadata(&path).map(|file| std::os::unix::fs::MetadataExt::ino(&file));
    let before = inode().expect("file");
    serve(&mut store);
    assert_eq!(inode().expect("file"), before, "a file that is there stays");
    // A stale one of a stranger in its place is no obstacle either.
    std::fs::remove_file(&path).expect("remove");
    drop(UnixListener::bind(&path).expect("bind"));
    serve(&mut store);
}

#[test]
fn a_unix_socket_without_a_file_is_kept_while_clients_wait_in_it() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("s");
    let specs = [spec(ListenerKey::unix(&path))];
    let mut store = store();
    store.bind(&specs, 2).expect("bind");
    store.listen(&specs).expect("listen");
    let client = UnixStream::connect(&path).expect("it accepts");
    std::fs::remove_file(&path).expect("remove");
    assert_eq!(store.restore_files(&specs).keys.len(), 1);
    store.listen(&specs).expect("listen");
    UnixStream::connect(&path).expect("the new one accepts");
    // Two threads have both sockets each: the shards of thread 0 are the even ones.
    let shards = store.shards(&specs[0].key);
    assert_eq!(shards.len(), 4);
    let accepted = [0, 2].map(|at: usize| {
        let listener = UnixListener::from(shards[at].1.try_clone_to_owned().expect("clone"));
        listener.accept().is_ok()
    });
    assert_eq!(accepted, [true, true]);
    drop(client);
    std::fs::remove_file(&path).expect("remove");
    assert_eq!(store.restore_files(&specs).keys.len(), 1);
    assert_eq!(store.shards(&specs[0].key).len(), 2, "nobody waits any more");
}

#[test]
fn a_file_that_cannot_be_made_again_leaves_the_socket_as_it_is() {
    let directory = tempfile::tempdir().expect("directory");
    let inner = directory.path().join("inner");
    std::fs::create_dir(&inner).expect("a directory");
    let specs = [spec(ListenerKey::unix(inner.join("s")))];
    let mut store = store();
    store.bind(&specs, 1).expect("bind");
    std::fs::remove_dir_all(&inner).expect("remove");
    let restored = store.restore_files(&specs);
    assert_eq!((restored.keys.len(), restored.failed.len()), (0, 1));
    store.bind(&specs, 1).expect("it is still held");
    assert_eq!(store.shards(&specs[0].key).len(), 1);
}

#[test]
fn a_unix_socket_somebody_listens_on_is_not_taken() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("s");
    let other = UnixListener::bind(&path).expect("bind");
    let error = store().bind(&[spec(ListenerKey::unix(&path))], 1).expect_err("taken");
    assert!(error.to_string().contains("another process listens there"), "{error}");
    drop(other);
    std::fs::remove_file(&path).expect("remove");
    std::fs::write(&path, "precious").expect("write");
    store().bind(&[spec(ListenerKey::unix(&path))], 1).expect_err("not a socket");
    assert!(path.exists(), "a file of another kind is left alone");
}

#[test]
fn inherited_sockets_are_found_by_address_and_by_name() {
    let by_address = TcpListener::bind("127.0.0.1:0").expect("bind");
    let place = by_address.local_addr().expect("address");
    let by_name = TcpListener::bind("127.0.0.1:0").expect("bind");
    let named_place = by_name.local_addr().expect("address");
    let inherited = vec![
        (OwnedFd::from(by_address), "unknown".to_owned()),
        (OwnedFd::from(by_name), "main".to_owned()),
    ];
    let mut store = FdStore::new(inherited, "/nowhere/baton".into());
    let mut first = spec(ListenerKey::tcp(place));
    first.name = "first".to_owned();
    let second = any_port();
    store.bind(&[first.clone(), second.clone()], 2).expect("adopt");
    assert_eq!(address(&store, &first.key), place);
    assert_eq!(address(&store, &second.key), named_place);
    assert_eq!(store.shards(&first.key).len(), 2, "every thread gets the one socket");
    assert!(store.shards(&first.key).iter().all(|(_, _, listening)| *listening));
}

#[test]
fn an_inherited_socket_is_used_again_when_its_listener_comes_back() {
    // As systemd makes it, without `SO_REUSEPORT`, and it keeps a copy.
    let made = TcpListener::bind("127.0.0.1:0").expect("bind");
    let place = made.local_addr().expect("address");
    let copy = OwnedFd::from(made.try_clone().expect("copy"));
    let mut store = FdStore::new(vec![(copy, "web".to_owned())], "/nowhere/baton".into());
    let spec = spec(ListenerKey::tcp(place));
    let specs = std::slice::from_ref(&spec);
    for _ in 0..2 {
        store.bind(specs, 2).expect("it cannot be bound, but it is there");
        store.listen(specs).expect("listen");
        let soon = std::time::Duration::from_secs(10);
        TcpStream::connect_timeout(&place, soon).expect("it hears");
        store.deafen(std::slice::from_ref(&spec.key));
        store.release(std::slice::from_ref(&spec.key));
        assert!(store.shards(&spec.key).is_empty());
        assert!(store.close_unused().is_empty(), "it is not left from an earlier supervisor");
    }
    drop(made);
}

#[test]
fn an_abstract_socket_can_be_bound() {
    let key = ListenerKey::unix(format!("@baton-test-{}", std::process::id()));
    let mut store = store();
    store.bind(&[spec(key.clone())], 1).expect("bind");
    assert_eq!(store.shards(&key).len(), 1);
}

#[test]
fn options_are_changed_on_sockets_that_accept() {
    let (mut store, mut spec) = (store(), any_port());
    store.bind(std::slice::from_ref(&spec), 2).expect("bind");
    store.listen(std::slice::from_ref(&spec)).expect("listen");
    let place = address(&store, &spec.key);
    let waiting = TcpStream::connect(place).expect("connect");
    spec.options.freebind = true;
    spec.options.fast_open_queue = Some(7);
    spec.options.backlog = 5;
    store.bind(std::slice::from_ref(&spec), 3).expect("bind");
    let freebind = |store: &FdStore| {
        let held = store.held.get(&spec.key).expect("held");
        held.shards.iter().map(|s| s.socket.freebind_v4().expect("freebind")).collect::<Vec<_>>()
    };
    assert_eq!(freebind(&store), [false, false, true], "nothing changes before the switch");
    store.listen(std::slice::from_ref(&spec)).expect("change");
    assert_eq!(freebind(&store), [true; 3]);
    spec.options = SocketOptions::default();
    store.listen(std::slice::from_ref(&spec)).expect("change back");
    assert_eq!(freebind(&store), [false; 3]);
    TcpStream::connect(place).expect("it still accepts");
    drop(waiting);
}

#[test]
fn an_option_that_only_an_unbound_socket_takes_is_refused_with_its_name() {
    let mut spec = spec(ListenerKey::tcp((std::net::Ipv6Addr::LOCALHOST, 0).into()));
    let mut store = store();
    store.bind(std::slice::from_ref(&spec), 1).expect("bind");
    spec.options.ipv4_compat = true;
    let error = store.bind(std::slice::from_ref(&spec), 1).expect_err("it is bound").to_string();
    assert!(error.contains("cannot change `ipv4_compat`"), "{error}");
    assert_eq!(store.shards(&spec.key).len(), 1, "what was bound stays");
}

#[test]
fn the_mode_of_a_socket_file_follows_the_configuration() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("s");
    let mut spec = spec(ListenerKey::unix(&path));
    let mut store = store();
    for mode in [0o600, 0o666] {
        spec.options.mode = mode;
        store.bind(std::slice::from_ref(&spec), 1).expect("bind");
        store.listen(std::slice::from_ref(&spec)).expect("listen");
        let found = std::fs::metadata(&path).expect("metadata").permissions().mode();
        assert_eq!(found & 0o777, mode);
    }
}

#[test]
fn a_deaf_listener_takes_nothing_new_and_loses_nothing_that_waits() {
    let (mut store, spec) = (store(), any_port());
    let specs = std::slice::from_ref(&spec);
    store.bind(specs, 2).expect("bind");
    store.listen(specs).expect("listen");
    let place = address(&store, &spec.key);
    let waiting: Vec<TcpStream> =
        (0..20).map(|_| TcpStream::connect(place).expect("connect")).collect();
    store.deafen(std::slice::from_ref(&spec.key));
    let soon = std::time::Duration::from_millis(200);
    TcpStream::connect_timeout(&place, soon).expect_err("nobody listens to it");
    let mut accepted = 0;
    for (_, fd, _) in store.shards(&spec.key) {
        let listener = TcpListener::from(fd.try_clone_to_owned().expect("clone"));
        while listener.accept().is_ok() {
            accepted += 1;
        }
    }
    assert_eq!(accepted, waiting.len());
    store.listen(specs).expect("listen again");
    TcpStream::connect(place).expect("it hears again");
}

#[test]
fn a_socket_that_was_left_deaf_hears_again_when_it_is_taken_over() {
    let (mut stopped, spec) = (store(), any_port());
    let specs = std::slice::from_ref(&spec);
    stopped.bind(specs, 1).expect("bind");
    stopped.listen(specs).expect("listen");
    let place = address(&stopped, &spec.key);
    stopped.deafen(std::slice::from_ref(&spec.key));
    let copy = stopped.shards(&spec.key).first().map(|(_, fd, _)| fd.try_clone_to_owned());
    let copy = copy.expect("a shard").expect("clone");
    stopped.release_all();
    let mut next = FdStore::new(vec![(copy, "main".to_owned())], "/nowhere/baton".into());
    next.bind(specs, 1).expect("adopt");
    next.listen(specs).expect("listen");
    let soon = std::time::Duration::from_secs(10);
    TcpStream::connect_timeout(&place, soon).expect("it hears again");
}

/// Copies of all sockets of a listener, as a worker has them.
fn copies(store: &FdStore, spec: &ListenerSpec) -> Vec<(HeldShard, OwnedFd)> {
    let shards = store.shards(&spec.key);
    let count = u32::try_from(shards.len()).expect("few");
    let copy = |(shard, fd, _): (u32, BorrowedFd<'_>, bool)| {
        let entry = HeldShard { spec: spec.clone(), shard, shards: count };
        (entry, fd.try_clone_to_owned().expect("copy"))
    };
    shards.into_iter().map(copy).collect()
}

#[test]
fn sockets_that_two_workers_bring_back_are_held_once_and_nothing_is_bound() {
    let name = format!("unix:@baton-back-{}", std::process::id());
    for spec in [any_port(), spec(name.parse().expect("key"))] {
        let mut first = store();
        first.bind(std::slice::from_ref(&spec), 3).expect("bind");
        first.listen(std::slice::from_ref(&spec)).expect("listen");
        let mut next = store();
        for (entry, fd) in copies(&first, &spec).into_iter().chain(copies(&first, &spec)) {
            next.hold(&entry, fd);
        }
        let is_tcp = matches!(spec.key.place(), Place::Tcp(_));
        let held = next.held.get(&spec.key).expect("held");
        assert_eq!(held.shards.len(), if is_tcp { 3 } else { 1 }, "{}", spec.key);
        assert_eq!(next.shards(&spec.key).len(), 3, "{}", spec.key);
        assert!(next.shards(&spec.key).iter().all(|(_, _, listening)| *listening));
        next.bind(std::slice::from_ref(&spec), 3).expect("nothing to bind");
        assert_eq!(
            next.held.get(&spec.key).expect("held").shards.len(),
            if is_tcp { 3 } else { 1 }
        );
        assert!(!next.held.get(&spec.key).expect("held").adopted, "it is ours to remove");
    }
}

#[test]
fn sockets_an_earlier_supervisor_stored_are_used_or_closed() {
    let mut first = store();
    let mut specs = [any_port(), any_port()];
    for spec in &mut specs {
        first.bind(std::slice::from_ref(spec), 2).expect("bind");
        first.listen(std::slice::from_ref(spec)).expect("listen");
        // The key of a real configuration names the port.
        let place = address(&first, &spec.key);
        let held = first.held.remove(&spec.key).expect("held");
        spec.key = ListenerKey::tcp(place);
        first.held.insert(spec.key.clone(), held);
    }
    let [used, unused] = specs;
    let stored = [&used, &unused].into_iter().flat_map(|spec| copies(&first, spec));
    let stored = stored.map(|(_, fd)| (fd, format!("{}1234", systemd::STORED))).collect();
    let mut next = FdStore::new(stored, "/nowhere/baton".into());
    let place = address(&first, &unused.key);
    drop(first);
    next.bind(std::slice::from_ref(&used), 2).expect("taken from the store");
    next.listen(std::slice::from_ref(&used)).expect("they may be deaf");
    assert_eq!(next.shards(&used.key).len(), 2);
    assert!(next.shards(&used.key).iter().all(|(_, _, listening)| *listening));
    assert_eq!(next.for_later().len(), 1, "it goes into the store again");
    TcpStream::connect(place).expect("a client would wait for ever");
    assert_eq!(next.close_unused().len(), 2);
    TcpStream::connect(place).expect_err("nobody listens there any more");
}

#[test]
fn a_listener_that_is_added_accepts_at_once_or_is_not_held() {
    let (mut store, added) = (store(), any_port());
    store.add(&added, 2).expect("a free port");
    let place = address(&store, &added.key);
    TcpStream::connect(place).expect("it accepts");
    store.deafen(std::slice::from_ref(&added.key));
    store.add(&added, 2).expect("it is held");
    TcpStream::connect(place).expect("it accepts again");

    let owner = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let taken = spec(ListenerKey::tcp(owner.local_addr().expect("its address")));
    let error = store.add(&taken, 1).expect_err("somebody else has it");
    assert!(error.to_string().contains("listens there"), "{error}");
    assert_eq!(store.shards(&taken.key).len(), 0, "nothing of it is kept");
}
