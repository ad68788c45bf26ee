// Imports, deploys and undeploys with the library that Apigee's own scripts use.
// Arguments: the management URL, the organisation, a ZIP.
const [, , server, org, zip] = process.argv;
const edgejs = require(process.env.NODE_TOOLS + '/node_modules/apigee-edge-js');

const assert = (truth, what) => { if (!truth) { throw new Error(what); } };

async function main() {
  const o = await edgejs.edge.connect({
    mgmtServer: server, orgname: org, org, user: 'u', password: 'p', no_token: true, verbosity: 0,
  });
  const environments = await o.environments.get();
  assert(environments.includes('test'), 'environments: ' + JSON.stringify(environments));
  const imported = await o.proxies.import({ name: 'library', source: zip });
  assert(imported.name === 'library' && imported.revision === '1', JSON.stringify(imported));
  const deployed = await o.proxies.deploy({ name: 'library', revision: '1', environment: 'test' });
  assert(deployed.state === 'deployed', JSON.stringify(deployed));
  const revisions = await o.proxies.getRevisions({ name: 'library' });
  assert(revisions.length === 1, JSON.stringify(revisions));
  await o.kvms.create({ environment: 'test', name: 'map' });
  await o.kvms.put({ environment: 'test', kvm: 'map', key: 'k', value: 'v' });
  await o.caches.create({ environment: 'test', cacheName: 'cache' });
  console.log('done');
}
main().catch((error) => { console.error(error.stack || error); process.exit(1); });
