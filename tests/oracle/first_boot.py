"""Reads metadata as a machine does at its first boot: by cloud-init's own EC2 data source (Debian's package), from URL.

usage: first_boot.py URL MAC

Prints what it made of it as JSON. Only one thing is told instead of found out: that this is EC2, which cloud-init reads from a machine's DMI.
"""

import json
import sys
import tempfile

from cloudinit import distros, helpers
from cloudinit.sources import DataSourceEc2 as ec2


def main(url, mac):
    ec2.identify_platform = lambda: ec2.CloudNames.AWS
    own = tempfile.mkdtemp()
    paths = helpers.Paths({"cloud_dir": own, "run_dir": own})
    distro = distros.fetch("debian")("debian", {}, paths)
    config = {"datasource": {"Ec2": {"metadata_urls": [url], "max_wait": 30, "timeout": 10}}}
    source = ec2.DataSourceEc2(config, distro, paths)
    if not source._get_data():
        sys.exit("cloud-init found no metadata")
    network = ec2.convert_ec2_metadata_network_config(source.metadata["network"], {mac: "eth0"})
    print(
        json.dumps(
            {
                "token": bool(source._api_token),
                "version": source.get_metadata_api_version(),
                "instance-id": source.get_instance_id(),
                "hostname": source.metadata["local-hostname"],
                "keys": source.get_public_ssh_keys(),
                "user-data": source.get_userdata_raw().decode(),
                "zone": source.availability_zone,
                "identity": source.identity,
                "network": network["ethernets"]["eth0"],
            }
        )
    )


main(*sys.argv[1:])
