//! Open vSwitch with its datapath in user space: the far end of a tunnel that shares no code with Linux's.

use crate::forms::{Form, INSIDE};
use crate::lab::Host;
use crate::program::Program;
use crate::site::{PATIENCE, Underlay};
use crate::until::until;
use std::path::PathBuf;
use std::process::Command;

/// A switch of a host: its database and its daemon, in the foreground and with all their files in the lab's folder.
/// Killed when dropped.
#[derive(Debug)]
pub struct Ovs {
    host: Host,
    folder: PathBuf,
    /// The daemon before its database.
    _daemons: [Program; 2],
}

/// What takes the inner packets of a tunnel on the switch's host.
pub const INSIDE_DEVICE: &str = "br-int";

/// The switch's outer address: over IPv6 its packets leave from that of the nearest subnet, whatever it is told.
const fn remote(form: Form) -> &'static str {
    match form.underlay {
        Underlay::V4 => form.underlay.remote(),
        Underlay::V6 => "2001:db8:f::fe",
    }
}

/// The configuration of a gateway as it must be for a switch at the far end of a tunnel of this form.
pub fn suit(form: Form, config: &str) -> String {
    let remote_of = |address: &str| format!("remote = {address:?}");
    config.replace(&remote_of(form.underlay.remote()), &remote_of(remote(form)))
}

impl Ovs {
    /// Starts it on a host that has `eth0` as [`Site`](crate::Site)'s remote has. The underlay's addresses move from
    /// there to the bridge `br-phy` that `eth0` becomes a port of; [`INSIDE_DEVICE`] has the far inside addresses.
    ///
    /// # Panics
    ///
    /// If it does not start.
    #[track_caller]
    pub fn start(host: &Host) -> Self {
        let folder = host.folder().join("ovs");
        std::fs::create_dir_all(&folder).expect("the lab's folder is ours");
        let path = |name: &str| folder.join(name).display().to_string();
        host.run(&format!("ovsdb-tool create {} /usr/share/openvswitch/vswitch.ovsschema", path("conf.db")));
        let daemon = |line: &str| {
            let mut words = line.split_whitespace();
            let mut command = Command::new(words.next().expect("a program"));
            command.args(words);
            for variable in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR"] {
                command.env(variable, &folder);
            }
            host.start_command(command)
        };
        let (socket, db, vs) = (path("db.sock"), path("db.ctl"), path("vs.ctl"));
        let database =
            daemon(&format!("/usr/sbin/ovsdb-server {} --remote=punix:{socket} --unixctl={db}", path("conf.db")));
        until("the database listens", PATIENCE, || folder.join("db.sock").exists());
        let switch = daemon(&format!("/usr/sbin/ovs-vswitchd unix:{socket} --unixctl={vs}"));
        let ovs = Self { host: host.clone(), folder, _daemons: [switch, database] };
        ovs.tell("--no-wait init");
        ovs.tell("add-br br-phy -- set bridge br-phy datapath_type=netdev -- add-port br-phy eth0");
        ovs.tell(&format!("add-br {INSIDE_DEVICE} -- set bridge {INSIDE_DEVICE} datapath_type=netdev"));
        host.run("ip address flush dev eth0 scope global");
        let underlay = ["192.0.2.254/24", "2001:db8:f::fe/64", "198.51.100.7/32", "2001:db8:b::7/128"];
        let addresses = underlay.map(|address| ("br-phy", address)).into_iter();
        for (device, address) in addresses.chain(INSIDE[1].map(|address| (INSIDE_DEVICE, address))) {
            host.run(&format!("ip address add {address} dev {device}"));
        }
        for device in ["br-phy", INSIDE_DEVICE] {
            host.run(&format!("ip link set {device} up"));
        }
        ovs
    }

    /// Makes the switch's end of a tunnel, in place of the last: of an OVS type, with further options, and with this MTU
    /// inside. It does for IP inside what a router's port would.
    ///
    /// # Panics
    ///
    /// If the switch refuses it.
    #[track_caller]
    pub fn carry(&self, form: Form, kind: &str, options: &str, mtu: u16) {
        self.tell("--if-exists del-port tun0");
        self.tell(&format!(
            "add-port {INSIDE_DEVICE} tun0 -- set interface tun0 type={kind} ofport_request=7 options:remote_ip={} options:local_ip={} \
             {options} -- set interface {INSIDE_DEVICE} mtu_request={mtu}",
            form.underlay.local(),
            remote(form),
        ));
        let failure = self.tell("get interface tun0 error");
        assert_eq!(failure.trim(), "[]", "{}", form.name);
        // The last form's tunnel had another MAC at our end.
        self.host.run(&format!("ip neigh flush dev {INSIDE_DEVICE}"));
        if form.ethernet {
            return;
        }
        // A frame that comes out of the tunnel has no addresses, and those of one that goes in are lost.
        let shown = self.host.run(&format!("ip -o link show {INSIDE_DEVICE}"));
        let own = shown.split("link/ether ").nth(1).and_then(|rest| rest.split(' ').next()).expect("Ethernet has one");
        self.add_flow(&format!("in_port=7,actions=set_field:{own}->eth_dst,LOCAL"));
        self.add_flow("in_port=LOCAL,actions=output:7");
        for inside in ["198.18.255.1", "2001:db8:ff::"] {
            self.host.run(&format!("ip neigh replace {inside} lladdr 02:00:00:00:00:01 dev {INSIDE_DEVICE}"));
        }
    }

    /// A command of ovs-vsctl(8). Returns when the switch has done it.
    ///
    /// # Panics
    ///
    /// If it fails.
    #[track_caller]
    pub fn tell(&self, command: &str) -> String {
        let socket = self.folder.join("db.sock");
        self.host.run(&format!("ovs-vsctl --timeout=30 --db=unix:{} {command}", socket.display()))
    }

    /// Adds a flow to the inside bridge.
    ///
    /// # Panics
    ///
    /// If it fails.
    #[track_caller]
    pub fn add_flow(&self, flow: &str) {
        self.add_flow_to(INSIDE_DEVICE, flow);
    }

    /// Adds a flow to a bridge.
    ///
    /// # Panics
    ///
    /// If it fails.
    #[track_caller]
    pub fn add_flow_to(&self, bridge: &str, flow: &str) {
        let bridge = self.folder.join(format!("{bridge}.mgmt"));
        self.host.run(&format!("ovs-ofctl -O OpenFlow15 add-flow {} {flow}", bridge.display()));
    }
}
