context.setVariable('form.name', request.formParams['name']);
context.setVariable('form.count', request.formParams.length);
context.setVariable('form.topic', request.body.asForm.topic);
context.setVariable('form.first', request.headers['X-Several'][0]);
context.setVariable('form.several', request.headers['X-Several'].length);
context.setVariable('form.number', 3.0);
context.setVariable('form.half', 0.5);
context.setVariable('form.flag', true);
context.removeVariable('form.count2');
