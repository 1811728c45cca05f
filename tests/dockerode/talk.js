// A conversation of dockerode with the daemon at DOCKER_HOST: each step says what it found, and the test compares.
// REGISTRY is a registry's host:port.
'use strict'

const assert = require('assert/strict')
const Docker = require('dockerode')
const { PassThrough, Readable } = require('stream')

const docker = new Docker()
const HostConfig = { NetworkMode: 'none' }

/** Collect a stream's words until it ends. */
function text (stream) {
  return new Promise((resolve, reject) => {
    const pieces = []
    stream.on('data', piece => pieces.push(piece))
    stream.on('end', () => resolve(Buffer.concat(pieces).toString()))
    stream.on('error', reject)
  })
}

/** Take a multiplexed stream apart; return what stdout and stderr said until it ended. */
async function apart (container, stream) {
  const out = new PassThrough()
  const err = new PassThrough()
  container.modem.demuxStream(stream, out, err)
  stream.on('end', () => { out.end(); err.end() })
  return Promise.all([text(out), text(err)])
}

/** Wait for a pull, a push or a load; return its messages. */
function followed (stream) {
  return new Promise((resolve, reject) =>
    docker.modem.followProgress(stream, (error, said) => error ? reject(error) : resolve(said)))
}

/** Return the status of the error that a call must end with. */
async function refused (promise) {
  try { await promise } catch (error) { return error.statusCode }
  throw new Error('that should have been refused')
}

/** A tar archive of one file, by hand. */
function tar (name, content) {
  const head = Buffer.alloc(512)
  const put = (words, at) => head.write(words, at, 'latin1')
  put(name, 0); put('0000644\0', 100); put('0000000\0', 108); put('0000000\0', 116)
  put(content.length.toString(8).padStart(11, '0') + '\0', 124); put('00000000000\0', 136)
  put('        ', 148); put('0', 156); put('ustar\x0000', 257)
  const sum = head.reduce((total, byte) => total + byte, 0)
  put(sum.toString(8).padStart(6, '0') + '\0 ', 148)
  const body = Buffer.alloc(Math.ceil(content.length / 512) * 512)
  body.write(content)
  return Buffer.concat([head, body, Buffer.alloc(1024)])
}

const steps = {
  async system () {
    assert.equal((await docker.ping()).toString(), 'OK')
    assert.equal((await docker.version()).ApiVersion, '1.41')
    assert.equal((await docker.info()).OSType, 'linux')
    assert.ok(Array.isArray((await docker.df()).Images))
  },

  async attach () {
    const container = await docker.createContainer({
      Image: 'busybox', Cmd: ['sh', '-c', 'echo err >&2; cat; exit 3'], name: 'cat', HostConfig,
      OpenStdin: true, StdinOnce: true, AttachStdin: true, AttachStdout: true, AttachStderr: true
    })
    const stream = await container.attach({
      stream: true, hijack: true, stdin: true, stdout: true, stderr: true
    })
    const said = apart(container, stream)
    const waited = container.wait({ condition: 'next-exit' })
    await container.start()
    stream.end('typed\n')
    assert.deepEqual(await said, ['typed\n', 'err\n'])
    assert.equal((await waited).StatusCode, 3)
    assert.equal(await refused(container.stop()), 304)
    await container.remove()
    assert.equal(await refused(container.inspect()), 404)
  },

  async run () {
    const out = new PassThrough()
    const said = text(out)
    const [status, container] = await docker.run('busybox', ['sh', '-c', 'tty >/dev/null && echo tty'], out, { HostConfig })
    assert.equal(status.StatusCode, 0)
    assert.equal(await said, 'tty\r\n')
    await container.remove()
  },

  async exec () {
    const container = docker.getContainer('main')
    const made = await container.exec({
      Cmd: ['sh', '-c', 'echo $A; cat; exit 7'], Env: ['A=b'],
      AttachStdin: true, AttachStdout: true, AttachStderr: true
    })
    const stream = await made.start({ hijack: true, stdin: true })
    const said = apart(container, stream)
    stream.end('typed')
    assert.deepEqual(await said, ['b\ntyped', ''])
    assert.equal((await made.inspect()).ExitCode, 7)
    const idle = await container.exec({ Cmd: ['sleep', '9'], Tty: true })
    await idle.start({ Detach: true })
    await idle.resize({ h: 30, w: 100 })
  },

  async logs () {
    const container = await docker.createContainer({
      Image: 'busybox', name: 'talker', HostConfig,
      Cmd: ['sh', '-c', 'for i in 1 2 3; do echo $i; sleep 0.2; done']
    })
    await container.start()
    const followed = await container.logs({ follow: true, stdout: true, stderr: true })
    assert.deepEqual(await apart(container, followed), ['1\n2\n3\n', ''])
    const last = await container.logs({ stdout: true, tail: 1, timestamps: true })
    assert.match(last.subarray(8).toString(), /^\d{4}-.*Z 3\n$/)
    await container.remove()
  },

  async numbers () {
    const container = docker.getContainer('main')
    const once = await container.stats({ stream: false })
    assert.ok(once.pids_stats.current >= 1 && once.cpu_stats.cpu_usage.total_usage > 0)
    const stream = await container.stats({ stream: true })
    const first = await new Promise(resolve => stream.once('data', resolve))
    assert.ok(JSON.parse(first).memory_stats.usage > 0)
    stream.destroy()
    assert.ok((await container.top({ ps_args: 'aux' })).Titles.includes('COMMAND'))
  },

  async states () {
    const container = docker.getContainer('main')
    await container.pause()
    assert.equal((await container.inspect()).State.Status, 'paused')
    await container.unpause()
    await container.update({ Memory: 64 << 20, MemorySwap: -1 })
    assert.equal((await container.inspect()).HostConfig.Memory, 64 << 20)
    await container.rename({ name: 'other' })
    const other = docker.getContainer('other')
    await other.restart({ t: 0 })
    await other.resize({ h: 10, w: 10 }).catch(error => assert.equal(error.statusCode, 409))
    const found = await docker.listContainers({ filters: { label: ['of=dockerode'], status: ['running'] } })
    assert.deepEqual(found.map(one => one.Names), [['/other']])
    await other.rename({ name: 'main' })
    assert.equal(await refused(container.remove()), 409)
    assert.equal(await refused(docker.createContainer({ Image: 'busybox', name: 'main' })), 409)
    assert.equal(await refused(docker.createContainer({ Image: 'nosuch' })), 404)
  },

  async archive () {
    const container = docker.getContainer('main')
    await container.putArchive(Readable.from([tar('note', 'from node')]), { path: '/tmp' })
    const back = await text(await container.getArchive({ path: '/tmp/note' }))
    assert.match(back, /^note\0[^]*from node/)
    const stat = await container.infoArchive({ path: '/tmp/note' })
    const about = stat.headers['x-docker-container-path-stat']
    assert.equal(JSON.parse(Buffer.from(about, 'base64')).size, 9)
    const changed = await container.changes()
    assert.ok(changed.some(one => one.Path === '/tmp/note' && one.Kind === 1))
    assert.match(await text(await container.export()), /bin\/busybox/)
    assert.equal(await refused(container.getArchive({ path: '/nosuch' })), 404)
  },

  async images () {
    const made = await docker.getContainer('main').commit({ repo: 'made', tag: '1', comment: 'by node' })
    const image = docker.getImage('made:1')
    assert.equal((await image.inspect()).Id, made.Id)
    assert.equal((await image.history())[0].Comment, 'by node')
    await image.tag({ repo: 'made', tag: '2' })
    const listed = await docker.listImages({ filters: { reference: ['made'] } })
    assert.deepEqual(listed[0].RepoTags.sort(), ['made:1', 'made:2'])
    const saved = await text(await image.get())
    assert.match(saved, /manifest.json/)
    const said = await followed(await docker.importImage(Readable.from([tar('a', 'b')]), { repo: 'flat', tag: '1' }))
    assert.match(said[0].status, /^sha256:/)
    for (const name of ['made:1', 'made:2', 'flat:1']) await docker.getImage(name).remove()
    assert.equal(await refused(image.inspect()), 404)
    await docker.pruneImages()
  },

  async registry () {
    const name = `${process.env.REGISTRY}/lab/hello`
    const image = docker.getImage(`${name}:1`)
    await docker.getImage('busybox').tag({ repo: name, tag: '1' })
    const pushed = await followed(await image.push({ authconfig: { username: '', password: '' } }))
    assert.ok(pushed.some(one => /^1: digest: sha256:\w+ size: \d+$/.test(one.status)))
    const { Descriptor } = await image.distribution()
    await image.remove()
    const pulled = await followed(await docker.pull(`${name}:1`))
    assert.ok(pulled.some(one => one.status === `Digest: ${Descriptor.digest}`))
    assert.equal(pulled.at(-1).status, `Status: Downloaded newer image for ${name}:1`)
    await image.remove()
    assert.equal(await refused(docker.pull(`${name}:nosuch`)), 404)
    assert.equal((await docker.checkAuth({ username: '', password: '', serveraddress: process.env.REGISTRY })).Status, 'Login Succeeded')
  },

  async networks () {
    const network = await docker.createNetwork({
      Name: 'lan', Labels: { a: 'b' }, IPAM: { Config: [{ Subnet: '10.99.0.0/24' }] }
    })
    await network.connect({ Container: 'wired', EndpointConfig: { Aliases: ['db'], IPAMConfig: { IPv4Address: '10.99.0.9' } } })
    const about = await network.inspect()
    assert.equal(Object.values(about.Containers)[0].IPv4Address, '10.99.0.9/24')
    assert.deepEqual((await docker.listNetworks({ filters: { label: ['a=b'] } })).map(one => one.Name), ['lan'])
    assert.equal(await refused(network.remove()), 403)
    await network.disconnect({ Container: 'wired' })
    await network.remove()
    assert.equal(await refused(docker.createNetwork({ Name: 'bridge' })), 403)
  },

  async volumes () {
    await docker.createVolume({ Name: 'data', Labels: { a: 'b' } })
    const volume = docker.getVolume('data')
    assert.deepEqual((await volume.inspect()).Labels, { a: 'b' })
    assert.equal((await docker.listVolumes({ filters: { label: ['a=b'] } })).Volumes.length, 1)
    await volume.remove()
    assert.equal(await refused(volume.inspect()), 404)
    await docker.pruneVolumes()
    await docker.pruneNetworks()
  },

  async absent () {
    assert.equal(await refused(docker.listServices()), 503)
    assert.equal(await refused(docker.swarmInspect()), 503)
    assert.deepEqual(await docker.listPlugins(), [])
  }
}

async function main () {
  const events = await docker.getEvents({ filters: { type: ['container'], container: ['cat'] } })
  const seen = []
  let rest = ''
  events.on('data', piece => {
    const lines = (rest + piece).split('\n')
    rest = lines.pop()
    seen.push(...lines.map(line => JSON.parse(line).Action))
  })
  for (const [name, network] of [['main', 'none'], ['wired', 'bridge']]) {
    const made = await docker.createContainer({
      Image: 'busybox', Cmd: ['sleep', '60'], name, Labels: name === 'main' ? { of: 'dockerode' } : {},
      HostConfig: { NetworkMode: network }
    })
    await made.start()
  }
  for (const [name, step] of Object.entries(steps)) {
    await step()
    console.log(name)
  }
  events.destroy()
  console.log(seen.join(' '))
  for (const name of ['main', 'wired']) await docker.getContainer(name).remove({ force: true, v: true })
}

main().then(() => process.exit(0), error => { console.log(error.stack); process.exit(1) })
