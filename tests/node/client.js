// A client that is none of ours: loads the protos, asks ADDRESS, and prints what it was told as JSON.
'use strict';

const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');

const [address, query, ...folders] = process.argv.slice(2);
const options = { keepCase: true, longs: Number, enums: String, oneofs: true, includeDirs: folders };
const files = ['search', 'index', 'datapoint'].map((name) => `earshot/v1/${name}_service.proto`);
const { earshot } = grpc.loadPackageDefinition(loader.loadSync(files, options));
const credentials = grpc.credentials.createInsecure();
const search = new earshot.v1.SearchService(address, credentials);
const indexes = new earshot.v1.IndexService(address, credentials);
const datapoints = new earshot.v1.DatapointService(address, credentials);

const deadline = () => new Date(Date.now() + 20000);
const vector = { float32: Buffer.from(query, 'base64') };

function ask(client, method, request) {
  return new Promise((resolve) => {
    client[method](request, { deadline: deadline() }, (error, reply) => {
      resolve(error ? { code: grpc.status[error.code], message: error.details } : reply);
    });
  });
}

function stream(requests) {
  return new Promise((resolve, reject) => {
    const call = search.StreamSearch({ deadline: deadline() });
    const answers = [];
    call.on('data', (answer) => answers.push(answer));
    call.on('error', reject);
    call.on('end', () => resolve(answers));
    requests.forEach((request) => call.write(request));
    call.end();
  });
}

async function main() {
  const asked = { index: 'plain', vector, neighbor_count: 3, metadata_fields: ['row'] };
  const found = await ask(search, 'Search', asked);
  const ids = (reply) => reply.neighbors.map((neighbor) => neighbor.datapoint.datapoint_id);
  const batch = await ask(search, 'BatchSearch', { index: 'plain', vectors: [vector, vector], neighbor_count: 3 });
  const streamed = await stream([asked, { index: 'nosuch', vector }, asked]);
  const read = await ask(datapoints, 'ReadDatapoints', { index: 'plain', ids: ['id-1'] });
  const listed = await ask(indexes, 'ListIndexes', {});
  console.log(JSON.stringify({
    found: ids(found),
    row: found.neighbors[0].datapoint.embedding_metadata.fields.row.numberValue,
    batch: batch.responses.map(ids),
    streamed: streamed.map((answer) => (answer.response ? ids(answer.response) : answer.error.code)),
    read: read.datapoints[0].feature_vector.length,
    listed: listed.indexes.map((index) => index.name),
    unknown: await ask(search, 'Search', { index: 'nosuch', text: 'x' }),
    wrong: await ask(search, 'Search', { index: 'plain', text: 'ü'.repeat(3) }),
  }));
}

main().then(() => process.exit(0), (error) => { console.error(error); process.exit(1); });
