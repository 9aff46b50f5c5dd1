#!/bin/busybox sh
# The helper domain's first process; see snf_xen.initrd. In place of the appliance's own init, it
# makes what guestfsd needs, and nothing else: starting programs takes most of the time here.
# The appliance's root is xvda and stays as it is; the tenants' disks follow as xvdb, xvdc, ...
export PATH=/bin
/bin/busybox mkdir -p /bin /proc /sys /dev /root /lower /upper
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
for module in $(cat /modules/order); do insmod "/modules/$module"; done
number=$(sed -n 's/.*snf_disks=\([0-9]*\).*/\1/p' /proc/cmdline)

# There is a device of the channel before there is anything behind it: opening it fails until then,
# which would kill the shell that tries. The console driver forgets its settings when the last one
# closes it, so it is kept open.
until (: <>/dev/hvc1) 2>/dev/null; do usleep 10000; done
exec 3<>/dev/hvc1
stty -F /dev/hvc1 raw -echo

until [ -b /dev/xvda ]; do usleep 10000; done
mount -t ext4 -o ro /dev/xvda /lower
mount -t tmpfs -o mode=0755 tmpfs /upper
mkdir /upper/changes /upper/work
mount -t overlay -o lowerdir=/lower,upperdir=/upper/changes,workdir=/upper/work overlay /root

# guestfsd knows SCSI disks: Linux's SCSI target shows Xen's disks as such. One after the other, so
# that their letters are in their order.
target=/sys/kernel/config/target
mount -t configfs config /sys/kernel/config
loopback=$target/loopback/naa.5000000000000001/tpgt_1
mkdir -p $loopback /dev/disk/by-path
echo naa.5000000000000002 >$loopback/nexus
names=abcdefghijklmnopqrstuvwxyz
index=0
while [ $index -lt $number ]; do
    name=sd${names:$index:1}
    index=$((index + 1))
    disk=/dev/xvd${names:$index:1}
    until [ -b $disk ]; do usleep 10000; done
    store=$target/core/iblock_0/disk$index
    mkdir -p $store $loopback/lun/lun_$index
    echo udev_path=$disk >$store/control
    echo 1 >$store/enable
    ln -s $store $loopback/lun/lun_$index/disk
    until [ -b /dev/$name ]; do usleep 10000; done
    echo 300 >/sys/block/$name/device/timeout
    # guestfsd lists disks by these links, which udev makes otherwise.
    ln -s /dev/$name /dev/disk/by-path/snf-$index
done
rm -f /dev/xvd*  # nobody shall find a disk twice

ifconfig lo up
ln -s /proc/self/fd /dev/fd
mkdir -p /dev/pts /dev/shm /dev/mapper
mount -t devpts devpts /dev/pts
mount -t tmpfs -o mode=1777 shm /dev/shm
cd /root
rm -rf tmp var/tmp
mkdir -p tmp var/tmp sysroot run
chmod 1777 tmp var/tmp
mount -t tmpfs -o nosuid,size=20%,mode=0755 run run
mkdir run/lock tmp/lvm
: >tmp/lvm/lvm.conf
ln -sf /proc/mounts etc/mtab
tr -d - </proc/sys/kernel/random/uuid >etc/machine-id
# Nobody shall look at a tenant's disk but for a task: udevd would, at every change. The kernel
# makes the device nodes; guestfsd waits for udev at every call and does without where it is gone.
rm -f usr/bin/udevadm usr/sbin/udevadm
for place in proc sys dev; do mount --move /$place $place; done
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LVM_SYSTEM_DIR=/tmp/lvm DM_DISABLE_UDEV=1
exec /bin/switch_root -c /dev/console /root /bin/sh -c \
    'guestfsd --channel /dev/hvc1 3<&-; sync; echo o >/proc/sysrq-trigger; sleep 60'
