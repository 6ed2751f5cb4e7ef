//! `qemu-args`: text that virtual machine monitors take as it is.

use crate::{answer, example, refusal};

fn qemu_args(config: &str, more: &[&str]) -> String {
    let config = example(config);
    answer(&[&["qemu-args", "--config", config.to_str().expect("text")], more].concat())
}

#[test]
fn the_three_forms_of_a_socket_we_listen_on() {
    insta::assert_snapshot!(qemu_args("two-hosts/hv1", &["vm1"]), @r"
    # QEMU (7.2 under TCG: also vectors=0 on the device; from 9.2 reconnect-ms=1000 replaces reconnect=1)
    -m 1G -object memory-backend-memfd,id=mem0,size=1G,share=on -machine memory-backend=mem0 \
    -chardev socket,id=chr-vm1,path=/run/vhost-ila/vm1.sock,reconnect=1 \
    -netdev vhost-user,id=net-vm1,chardev=chr-vm1 \
    -device virtio-net-pci,netdev=net-vm1,mac=52:54:00:00:00:01,host_mtu=1480

    # cloud-hypervisor
    --memory size=1G,shared=on \
    --net vhost_user=true,socket=/run/vhost-ila/vm1.sock,vhost_mode=client,mac=52:54:00:00:00:01,mtu=1480

    # libvirt: memoryBacking in <domain>, interface in <devices>
    <memoryBacking>
      <source type='memfd'/>
      <access mode='shared'/>
    </memoryBacking>
    <interface type='vhostuser'>
      <mac address='52:54:00:00:00:01'/>
      <source type='unix' path='/run/vhost-ila/vm1.sock' mode='client'>
        <reconnect enabled='yes' timeout='1'/>
      </source>
      <model type='virtio'/>
      <mtu size='1480'/>
    </interface>

    # N queue pairs, up to 8: QEMU: queues=N on the netdev, mq=on,vectors=2N+2 on the device;
    # cloud-hypervisor, N up to 4: num_queues=2N; libvirt: <driver queues='N'/> in <interface>
    ");
}

#[test]
fn the_three_forms_of_a_socket_the_front_end_listens_on() {
    insta::assert_snapshot!(qemu_args("one-host.toml", &["b"]), @r"
    # QEMU (7.2 under TCG: also vectors=0 on the device; from 9.2 reconnect-ms=1000 replaces reconnect=1)
    -m 1G -object memory-backend-memfd,id=mem0,size=1G,share=on -machine memory-backend=mem0 \
    -chardev socket,id=chr-b,path=/tmp/vhost-ila/b.sock,server=on,wait=off \
    -netdev vhost-user,id=net-b,chardev=chr-b \
    -device virtio-net-pci,netdev=net-b,mac=52:54:00:00:0a:02,host_mtu=1480

    # cloud-hypervisor
    --memory size=1G,shared=on \
    --net vhost_user=true,socket=/tmp/vhost-ila/b.sock,vhost_mode=server,mac=52:54:00:00:0a:02,mtu=1480

    # libvirt: memoryBacking in <domain>, interface in <devices>
    <memoryBacking>
      <source type='memfd'/>
      <access mode='shared'/>
    </memoryBacking>
    <interface type='vhostuser'>
      <mac address='52:54:00:00:0a:02'/>
      <source type='unix' path='/tmp/vhost-ila/b.sock' mode='server'/>
      <model type='virtio'/>
      <mtu size='1480'/>
    </interface>

    # N queue pairs, up to 8: QEMU: queues=N on the netdev, mq=on,vectors=2N+2 on the device;
    # cloud-hypervisor, N up to 4: num_queues=2N; libvirt: <driver queues='N'/> in <interface>
    ");
}

#[test]
fn packed_rings_are_asked_of_the_front_ends_that_know_them() {
    let text = std::fs::read_to_string(example("one-host.toml")).expect("an example");
    let directory = tempfile::tempdir().expect("a directory");
    let config = directory.path().join("host.toml");
    std::fs::write(&config, text.replace("[attachment.b]\n", "[attachment.b]\npacked = true\n"))
        .expect("written");
    for (name, asked) in [("a", false), ("b", true)] {
        let text = answer(&["qemu-args", "--config", config.to_str().expect("text"), name]);
        assert_eq!(text.contains(",host_mtu=1480,packed=on\n"), asked, "{text}");
        assert_eq!(text.contains("  <driver packed='on'/>\n"), asked, "{text}");
    }
}

#[test]
fn one_form_alone_is_free_of_comments() {
    for form in ["qemu", "cloud-hypervisor", "libvirt"] {
        let text = qemu_args("two-hosts/hv1", &["vm1", "--only", form]);
        assert!(!text.contains('#') && text.contains("52:54:00:00:00:01"), "{text}");
    }
}

#[test]
fn an_attachment_that_does_not_exist_is_refused_with_the_nearest() {
    let config = example("two-hosts/hv1");
    let refused = refusal(&["qemu-args", "vn1", "--config", config.to_str().expect("text")]);
    assert!(refused.contains("did you mean vm1?"), "{refused}");
}

#[test]
fn the_sockets_are_where_runtime_says() {
    let text = qemu_args("two-hosts/hv1", &["vm1", "--only", "qemu", "--runtime", "/srv/hv1"]);
    assert!(text.contains(",path=/srv/hv1/vm1.sock,"), "{text}");
}
